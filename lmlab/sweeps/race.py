"""Who is still in a sweep with successive halving.

Who goes on from a rung is decided by what stands in the trials' records at that step and by nothing else: every worker,
also one that comes later, decides the same.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from lmlab.specs import FrozenDict
from lmlab.sweeps.direction import better
from lmlab.sweeps.folder import FAILED, SweepFolder
from lmlab.sweeps.halving import Halving
from lmlab.sweeps.records import curve, read_records

Trial = Mapping[str, Any]
"""What sweep.json has of a trial."""


class Race:
    """Who is still in a sweep at each rung.

    Args:
      folder: of the sweep.
      halving: what sweep.json has of it; None: all stay to the end.
    """

    def __init__(self, folder: SweepFolder, halving: Mapping[str, Any] | None) -> None:
        self._folder = folder
        self._halving = None if halving is None else Halving(**{**halving, "rungs": tuple(halving["rungs"])})

    @property
    def rungs(self) -> tuple[int | None, ...]:
        """The steps at which some are let go of, and None: the end."""
        return (*(self._halving.rungs if self._halving else ()), None)

    def undecided(self, trials: Sequence[Trial], rung: int) -> list[Trial]:
        """Those that have neither failed nor come to a rung."""
        return [trial for trial in trials if not self._failed(trial) and not self.reached(trial, rung)]

    def reached(self, trial: Trial, rung: int) -> bool:
        """Whether a trial has come to a rung."""
        return self._folder.trial(trial["id"]).status().get("step", 0) >= rung

    def going_on(self, trials: Sequence[Trial], rung: int) -> list[Trial]:
        """Those of the best settings, where none is undecided; in their order."""
        assert self._halving is not None
        values = {setting: self._mean(members, rung) for setting, members in _by_setting(trials).items()}
        worst_last = sorted(values, key=lambda setting: values[setting])
        kept = set(worst_last[: math.ceil(self._halving.keep * len(values))])
        return [trial for trial in trials if _key(trial) in kept]

    def let_go(self, trial: Trial, rung: int) -> None:
        """Writes that a trial has ended at a rung; only who holds its lock may."""
        assert self._halving is not None
        record = self._folder.record(trial["id"])
        if record is not None and not record.ended:
            record.status = "pruned"
            value = self._value(trial, rung)
            record.message = f"behind at step {rung}, with {self._halving.metric} = {value and f'{value:.6g}'}"
            self._folder.write_record(record)

    def _mean(self, members: Sequence[Trial], rung: int) -> float:
        """Of a setting, lower being better: infinite where one of its trials failed or diverged."""
        assert self._halving is not None
        values = [self._value(trial, rung) for trial in members]
        if any(value is None or not math.isfinite(value) for value in values):
            return math.inf
        mean = statistics.fmean(value for value in values if value is not None)
        return mean if better(self._halving.metric, self._halving.better) == "lower" else -mean

    def _failed(self, trial: Trial) -> bool:
        record = self._folder.record(trial["id"])
        return record is not None and record.status in FAILED

    def _value(self, trial: Trial, rung: int) -> float | None:
        assert self._halving is not None
        steps, values = curve(read_records(self._folder.trial(trial["id"]).metrics), self._halving.metric)
        return dict(zip(steps, values, strict=True)).get(rung)


def _key(trial: Trial) -> FrozenDict:
    return FrozenDict(trial["settings"])


def _by_setting(trials: Sequence[Trial]) -> dict[FrozenDict, list[Trial]]:
    found: dict[FrozenDict, list[Trial]] = {}
    for trial in trials:
        found.setdefault(_key(trial), []).append(trial)
    return found
