"""What happened since the last record: exact sums of the metrics, updates that were skipped, and where time went."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np


@dataclass
class Interval:
    """Sums of the metrics over the steps of one record, added in order in float64.

    A checkpoint in the middle of an interval keeps it, so that the resumed run writes the same record.

    Attributes:
      sums: by metric: the sum and the weight so far.
      steps: steps added.
      skipped_in_a_row: updates that the finite guard has skipped up to now.
      longest_row: the longest row of skipped updates that ended or stands in this interval.
      longest_row_from: the step with which it began.
    """

    sums: dict[str, list[float]] = field(default_factory=dict)
    steps: int = 0
    skipped_in_a_row: int = 0
    longest_row: int = 0
    longest_row_from: int = 0

    def add(self, step: int, names: Sequence[str], metrics: np.ndarray) -> None:
        """Adds the metrics of a dispatch, as `program.Dispatch` gives them, whose first step was `step` (from 0)."""
        for row in metrics.reshape(-1, len(names), 2).tolist():
            named = dict(zip(names, row, strict=True))
            for name, (total, weight) in named.items():
                pair = self.sums.setdefault(name, [0.0, 0.0])
                pair[0] += total
                pair[1] += weight
            self._count_skipped(step, named["skipped"][0] > 0)
            step += 1
            self.steps += 1

    def record(self) -> dict[str, float | None]:
        """The metrics, each divided once; None for one of which nothing was measured."""
        return {name: total / weight if weight else None for name, (total, weight) in self.sums.items()}

    def begin_anew(self) -> None:
        """Forgets the sums; the row of skipped updates goes on."""
        self.sums, self.steps, self.longest_row = {}, 0, 0

    def _count_skipped(self, step: int, skipped: bool) -> None:
        self.skipped_in_a_row = self.skipped_in_a_row + 1 if skipped else 0
        if self.skipped_in_a_row > self.longest_row:
            self.longest_row = self.skipped_in_a_row
            self.longest_row_from = step + 1 - self.skipped_in_a_row


class Stopwatch:
    """Wall time of training since the last record, without the pauses for evaluating and saving."""

    def __init__(self) -> None:
        self._begin_anew()

    @contextmanager
    def paused(self) -> Iterator[None]:
        """What happens inside does not count."""
        start = time.perf_counter()
        try:
            yield
        finally:
            self._away += time.perf_counter() - start

    @contextmanager
    def waiting(self) -> Iterator[None]:
        """What happens inside counts, and counts as waiting for data."""
        start = time.perf_counter()
        try:
            yield
        finally:
            self._waited += time.perf_counter() - start

    def read(self, steps: int, tokens: int) -> dict[str, Any]:
        """The times of `steps` steps over `tokens` tokens; begins anew."""
        now = time.perf_counter()
        seconds = max(now - self._start - self._away, 1e-9)
        timing = {
            "time": time.time(),
            "seconds": seconds,
            "steps_per_second": steps / seconds,
            "tokens_per_second": tokens / seconds,
            "waited_for_data": self._waited,
        }
        self._begin_anew()
        return timing

    def _begin_anew(self) -> None:
        self._start, self._away, self._waited = time.perf_counter(), 0.0, 0.0
