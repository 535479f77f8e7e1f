"""What may be said from a few seeds: means and paired differences with intervals, and tests corrected for their number.

Everything is about one number per seed (the metric at the end of a trial). What cannot be had from so few numbers, or
from numbers without spread, is None; nothing is made up in its place.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from scipy import special, stats

LEVEL = 0.95
"""Of every interval."""

FEWEST_TO_RESAMPLE = 5
"""Seeds that a bootstrap interval needs: of three, one resample in nine is one seed alone, and the interval would be
hardly more than the smallest and the largest difference. It is too narrow with few seeds all the same: 95 % intervals
of normal numbers held the mean in 82 % (5 seeds), 88 % (8) and 94 % (20) of 400 samples."""

RESAMPLES = 9999
_BOOTSTRAP_SEED = 0

_ROUNDING = 1e-12
"""A spread below this share of the numbers themselves is rounding, not spread."""


class Interval(NamedTuple):
    """A lower and an upper end."""

    low: float
    high: float


@dataclass(frozen=True)
class Mean:
    """The mean of some numbers.

    Attributes:
      value: the mean.
      count: of how many numbers.
      interval: Student's t interval; None for one number, and for numbers without spread.
    """

    value: float
    count: int
    interval: Interval | None

    @property
    def margin(self) -> float | None:
        """Half the width of the interval."""
        return None if self.interval is None else (self.interval.high - self.interval.low) / 2


@dataclass(frozen=True)
class Difference:
    """How a variant differs from the baseline, seed by seed.

    Attributes:
      mean: variant minus baseline, with the t interval.
      seeds: the seeds that both have, to which `differences` belong.
      differences: variant minus baseline for each of them.
      bootstrap: BCa interval (Efron 1987) of the mean over resampled seeds; None below `FEWEST_TO_RESAMPLE` seeds, and
        without spread.
      p: of the two-sided paired t test; 1 where several seeds differ by nothing, None where it cannot be had: one seed,
        or the same difference, not zero, in every seed.
      holm: `p` corrected for all variants compared (Holm 1979); filled in by who compares several.
      effect: mean difference over the differences' standard deviation, with Hedges' correction for few numbers; None
        below three seeds, and without spread.
    """

    mean: Mean
    seeds: tuple[int, ...]
    differences: tuple[float, ...]
    bootstrap: Interval | None
    p: float | None
    effect: float | None
    holm: float | None = None

    @property
    def identical(self) -> bool:
        """Whether both have the same number in every seed."""
        return not any(self.differences)


def mean(values: Sequence[float] | np.ndarray) -> Mean:
    """The mean of at least one number, with Student's t interval.

    Example: `mean([1, 2, 3])` is 2 with (-0.484, 4.484): 2 ± 4.303 · 1 / √3.
    """
    numbers = np.asarray(values, np.float64)
    centre, n = float(numbers.mean()), len(numbers)
    if not _has_spread(numbers, np.abs(numbers).max()):
        return Mean(centre, n, None)
    margin = float(stats.t.ppf((1 + LEVEL) / 2, n - 1) * numbers.std(ddof=1) / np.sqrt(n))
    return Mean(centre, n, Interval(centre - margin, centre + margin))


def bands(values: np.ndarray) -> tuple[np.ndarray, np.ndarray | None]:
    """The mean of `values` (n, points) at every point, and half the width of its t interval; None for one number."""
    n = len(values)
    with np.errstate(invalid="ignore", over="ignore"):  # what is not finite stays so
        middle = values.mean(0)
        if n < 2:
            return middle, None
        return middle, stats.t.ppf((1 + LEVEL) / 2, n - 1) * values.std(0, ddof=1) / np.sqrt(n)


def difference(variant: Mapping[int, float], baseline: Mapping[int, float]) -> Difference | None:
    """The paired difference of two variants given as seed -> number; None where no seed is in both."""
    seeds = tuple(sorted(variant.keys() & baseline.keys()))
    if not seeds:
        return None
    a, b = (np.asarray([side[seed] for seed in seeds], np.float64) for side in (variant, baseline))
    found = a - b
    if not _has_spread(found, max(np.abs(a).max(), np.abs(b).max())):
        p = 1.0 if len(seeds) > 1 and not found.any() else None
        return Difference(Mean(float(found.mean()), len(seeds), None), seeds, tuple(found.tolist()), None, p, None)
    return Difference(
        mean=mean(found),
        seeds=seeds,
        differences=tuple(found.tolist()),
        bootstrap=bootstrap(found),
        p=float(stats.ttest_1samp(found, 0.0).pvalue),
        effect=_effect(found),
    )


def bootstrap(values: np.ndarray) -> Interval | None:
    """The BCa interval of the mean of `values` (n,) by `RESAMPLES` resamples, the same at every call."""
    if len(values) < FEWEST_TO_RESAMPLE:
        return None
    found = stats.bootstrap(
        (values,), np.mean, n_resamples=RESAMPLES, confidence_level=LEVEL, method="BCa",
        rng=np.random.default_rng(_BOOTSTRAP_SEED),
    ).confidence_interval  # fmt: skip
    return Interval(float(found.low), float(found.high)) if np.isfinite([found.low, found.high]).all() else None


def holm(p_values: Sequence[float | None]) -> list[float | None]:
    """p values corrected so that all of them together err with the chance that one alone would (Holm 1979).

    The k-th smallest of m is multiplied by m - k + 1, and none may be smaller than one before it. None stays None and
    does not count.

    Example: `holm([0.01, 0.04, 0.03])` is `[0.03, 0.06, 0.06]`.
    """
    order = sorted((p, index) for index, p in enumerate(p_values) if p is not None)
    corrected: list[float | None] = [None] * len(p_values)
    largest = 0.0
    for rank, (p, index) in enumerate(order):
        largest = max(largest, min(1.0, p * (len(order) - rank)))
        corrected[index] = largest
    return corrected


@dataclass(frozen=True)
class Level:
    """One value of an axis, averaged over everything else."""

    value: str
    mean: Mean


@dataclass(frozen=True)
class MainEffect:
    """What an axis does, averaged over everything else.

    Attributes:
      axis: its key.
      levels: its values in their order.
      contexts: settings of the other axes under which every value was measured with one seed at least. Each value is
        averaged over them, and the interval is over seeds. Zero where there are none: then each value's mean is over
        all trials that have it, which differ in other axes too, and the interval is over trials.
    """

    axis: str
    levels: tuple[Level, ...]
    contexts: int


class Cell(NamedTuple):
    """One measured trial."""

    settings: Mapping[str, str]
    seed: int
    value: float


def main_effect(axis: str, cells: Sequence[Cell]) -> MainEffect | None:
    """The main effect of an axis on the trials that have it; None where it has fewer than two values among them."""
    having = [cell for cell in cells if axis in cell.settings]
    values = tuple(dict.fromkeys(cell.settings[axis] for cell in having))
    if len(values) < 2:
        return None
    units: dict[tuple[frozenset[tuple[str, str]], int], dict[str, float]] = {}
    for cell in having:
        others = frozenset((key, value) for key, value in cell.settings.items() if key != axis)
        units.setdefault((others, cell.seed), {})[cell.settings[axis]] = cell.value
    complete = {key: unit for key, unit in units.items() if len(unit) == len(values)}
    if not complete:
        levels = (Level(v, mean([cell.value for cell in having if cell.settings[axis] == v])) for v in values)
        return MainEffect(axis, tuple(levels), 0)
    seeds = sorted({seed for _, seed in complete})
    of_seed = [[unit for (_, seed), unit in complete.items() if seed == one] for one in seeds]
    levels = (Level(v, mean([float(np.mean([unit[v] for unit in units])) for units in of_seed])) for v in values)
    return MainEffect(axis, tuple(levels), len({context for context, _ in complete}))


def _has_spread(values: np.ndarray, scale: float) -> bool:
    return len(values) > 1 and float(values.std(ddof=1)) > _ROUNDING * scale


def _effect(values: np.ndarray) -> float | None:
    """The mean over the standard deviation, times J = Γ(f/2) / (√(f/2) Γ((f-1)/2)) for f = n - 1 (Hedges 1981)."""
    free = len(values) - 1
    if free < 2:
        return None
    correction = np.exp(special.gammaln(free / 2) - special.gammaln((free - 1) / 2)) / np.sqrt(free / 2)
    return float(values.mean() / values.std(ddof=1) * correction)
