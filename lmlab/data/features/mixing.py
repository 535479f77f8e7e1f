"""Rows of several datasets in one order, each dataset's share of the places given by weights that may change."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from lmlab.data.features.rows import Batch, Rows
from lmlab.data.order import Order, permute
from lmlab.errors import ConfigError

BLOCK = 1000
"""Places in which every part has exactly its share: weights are resolved to a thousandth."""

Stages = Sequence[tuple[int, Sequence[float]]]
"""(first step, weights) in the order of the steps; the first begins at step 0."""


class Stage(NamedTuple):
    """Places from `begin` on, in blocks of which each part has `quotas` places.

    Attributes:
      begin: its first place.
      quotas: places of each part in a block, (P,) int64, summing to `BLOCK`.
      before: rows that each part has given before this stage, (P,) int64.
    """

    begin: int
    quotas: np.ndarray
    before: np.ndarray


class MixedOrder:
    """Which row of which part stands at place i, a pure function of (seed, place), in constant time.

    A block's places are dealt out to the parts by a permutation of their quotas, and each part's rows come in an order
    of its own, every row once per epoch of that part. Where a stage ends within a block, a part passes over the rest
    of its quota, so that a few of its rows wait for its next epoch.

    Args:
      sizes: rows of each part.
      stages: see `Stages`.
      batch: rows per step.
      seed: any integer.
    """

    def __init__(self, sizes: Sequence[int], stages: Stages, batch: int, seed: int) -> None:
        self._seed = seed
        self._offsets = np.cumsum([0, *sizes[:-1]])
        self._orders = [Order(size, seed + 1 + part) for part, size in enumerate(sizes)]
        self._stages: list[Stage] = []
        used = np.zeros(len(sizes), np.int64)
        for step, weights in stages:
            begin = step * batch
            if self._stages:
                last = self._stages[-1]
                used = last.before + -(-(begin - last.begin) // BLOCK) * last.quotas
            self._stages.append(Stage(begin, quotas_of(weights), used))

    def __getitem__(self, places: range) -> np.ndarray:
        """Rows at `places`, numbered through all parts, int64."""
        found = np.empty(places.stop - places.start, np.int64)
        for at, part, place in self._dealt(places.start, places.stop):
            for number in np.unique(part):
                mine = np.flatnonzero(part == number)
                wanted = place[mine]  # all within one block's quota, so that the range is short
                first, last = int(wanted.min()), int(wanted.max())
                rows = self._orders[number][range(first, last + 1)][wanted - first]
                found[at - places.start + mine] = self._offsets[number] + rows
        return found[:: places.step]

    def counts(self, stop: int) -> np.ndarray:
        """How many of the places before `stop` each part has, (P,) int64."""
        total = np.zeros(len(self._orders), np.int64)
        for stage, end in self._spans(0, stop):
            whole = (end - stage.begin) // BLOCK
            total += whole * stage.quotas
            for _, part, _ in self._dealt(stage.begin + whole * BLOCK, end):
                total += np.bincount(part, minlength=len(total))
        return total

    def quotas(self) -> list[tuple[int, np.ndarray]]:
        """First place and shares of each stage."""
        return [(stage.begin, stage.quotas / BLOCK) for stage in self._stages]

    def _spans(self, start: int, stop: int) -> Iterator[tuple[Stage, int]]:
        """Stages that begin before `stop` and end behind `start`, with where each ends."""
        for i, stage in enumerate(self._stages):
            end = self._stages[i + 1].begin if i + 1 < len(self._stages) else stop
            if stage.begin < stop and end > start:
                yield stage, min(end, stop)

    def _dealt(self, start: int, stop: int) -> Iterator[tuple[int, np.ndarray, np.ndarray]]:
        """For stretches of places within a block: the first place, and each place's part and place in that part."""
        for stage, end in self._spans(start, stop):
            at = max(start, stage.begin)
            while at < end:
                block, first = divmod(at - stage.begin, BLOCK)
                count = min(end - at, BLOCK - first)
                words = [abs(self._seed), int(self._seed < 0), stage.begin, block]
                keys = np.random.SeedSequence(words).generate_state(8, np.uint64)
                dealt = permute(np.arange(first, first + count, dtype=np.uint64), BLOCK, keys).astype(np.int64)
                edges = np.cumsum(stage.quotas)
                part = np.searchsorted(edges, dealt, side="right")
                rank = dealt - (edges - stage.quotas)[part]
                yield at, part, stage.before[part] + block * stage.quotas[part] + rank
                at += count


def quotas_of(weights: Sequence[float]) -> np.ndarray:
    """Whole places out of `BLOCK` for each weight, by largest remainders, (P,) int64.

    Raises:
      ConfigError: a weight is negative or too small to have a place, or all are 0.
    """
    given = np.array(weights, np.float64)
    if (given < 0).any() or not np.isfinite(given).all() or given.sum() <= 0:
        raise ConfigError(f"mixture: weights {tuple(weights)}: none may be negative, and not all may be 0.")
    exact = given / given.sum() * BLOCK
    quotas = np.floor(exact).astype(np.int64)
    for part in np.argsort(quotas - exact, kind="stable")[: BLOCK - quotas.sum()]:
        quotas[part] += 1
    if ((quotas == 0) & (given > 0)).any():
        raise ConfigError(f"mixture: weights {tuple(weights)}: shares are resolved to 1/{BLOCK}, and one is smaller.")
    return quotas


@dataclass(frozen=True, eq=False)
class Mixed:
    """The rows of several parts, numbered through.

    Args:
      parts: their rows.
      names: the parts' names.
      stages: see `Stages`.
    """

    parts: Sequence[Rows]
    names: Sequence[str]
    stages: Stages

    def __len__(self) -> int:
        return sum(map(len, self.parts))

    @property
    def ids(self) -> np.ndarray:
        """The parts' ids, one after the other."""
        return np.concatenate([part.ids for part in self.parts])

    @property
    def targets(self) -> int:
        """Predictions in all rows."""
        return sum(part.targets for part in self.parts)

    @property
    def notes(self) -> Mapping[str, float]:
        """What happened on the way to each part's rows."""
        pairs = zip(self.names, self.parts, strict=True)
        return {f"{name}: {note}": value for name, part in pairs for note, value in part.notes.items()}

    def order(self, seed: int, batch: int) -> MixedOrder:
        """The order of training."""
        return MixedOrder([len(part) for part in self.parts], self.stages, batch, seed)

    def gather(self, rows: np.ndarray, places: np.ndarray | None = None) -> Batch:
        """These rows; parts without segments are one segment where another part has several."""
        edges = np.cumsum([len(part) for part in self.parts])
        of = np.searchsorted(edges, rows, side="right")
        places = rows if places is None else places
        batches, at = [], []
        for number, part in enumerate(self.parts):
            mine = np.flatnonzero(of == number)
            if len(mine):
                first = edges[number] - len(part)
                batches.append(dict(part.gather(rows[mine] - first, places[mine])))
                at.append(mine)
        names = {name: None for batch in batches for name in batch}
        mixed = {name: np.concatenate([completed(batch, name) for batch in batches]) for name in names}
        back = np.argsort(np.concatenate(at)) if at else np.empty(0, np.int64)
        return {name: values[back] for name, values in mixed.items()}


def completed(batch: Batch, name: str) -> np.ndarray:
    """A field of a batch; what a batch of one segment leaves out, made up."""
    if name in batch:
        return batch[name]
    there = batch["weights"] > 0
    if name == "segment_ids":
        return there.astype(np.int32)
    if name == "positions":
        return np.arange(there.shape[1], dtype=np.int32) * there
    raise ConfigError(f"mixture: only some parts have '{name}': they cannot stand in one batch.")
