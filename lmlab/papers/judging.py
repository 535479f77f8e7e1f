"""From numbers to verdicts: what is judged of several seeds, and against which band."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from statistics import median
from typing import Literal

from lmlab.papers.claims import Band, Claim, Over
from lmlab.papers.results import SeedResult, share_key
from lmlab.sweeps.statistics import Interval, mean

Kind = Literal["met", "failed", "early: on course", "early: off", "not run", "damaged"]
BAD: frozenset[Kind] = frozenset({"failed", "early: off", "damaged"})


@dataclass(frozen=True)
class Verdict:
    """What is to be said of a claim.

    Attributes:
      value: what was judged: of the seeds' numbers what `over` says.
      interval: Student's t interval of the mean of several seeds; of another `over`, the smallest and the largest.
      seeds: how many have a number.
      share: of the steps, at which it was judged; 1 is the end.
      measured: when the newest of the numbers was measured.
      note: why there is no number, or what is to be known of it.
      asked: the claim was to be measured now, and was not.
    """

    kind: Kind
    value: float | None = None
    interval: Interval | None = None
    seeds: int = 0
    share: float = 1.0
    measured: datetime | None = None
    note: str = ""
    asked: bool = False

    @property
    def bad(self) -> bool:
        """Whether a reproduction that has it is not a success."""
        return self.kind in BAD or self.asked


def judged(claim: Claim, results: Sequence[SeedResult]) -> Verdict:
    """The verdict on what was measured: at the end where a seed has come there, else at the latest early band."""
    shares = [1.0, *(early.at for early in reversed(claim.early))]
    for share in shares:
        found = [result for result in results if share_key(share) in result.values]
        band = claim.band_at(share)
        if found and band is not None:
            return _verdict(claim, found, share, band)
    return Verdict("not run")


def _verdict(claim: Claim, results: Sequence[SeedResult], share: float, band: Band) -> Verdict:
    values = [result.values[share_key(share)] for result in results]
    value, interval = summary(claim.over, values, [result.loss for result in results], band)
    kinds: tuple[Kind, Kind] = ("met", "failed") if share == 1 else ("early: on course", "early: off")
    newest = max(result.measured_at for result in results)
    return Verdict(kinds[value not in band], value, interval, len(values), share, newest)


def summary(
    over: Over, values: Sequence[float], losses: Sequence[float | None], band: Band
) -> tuple[float, Interval | None]:
    """What is judged of the seeds' numbers, with its interval; see `Verdict`."""
    if over == "mean":
        found = mean(values)
        return found.value, found.interval
    spread = Interval(min(values), max(values)) if len(values) > 1 else None
    if over == "median":
        return median(values), spread
    if over == "worst":
        return max(values, key=lambda value: max(band.low - value, value - band.high)), spread
    order = sorted(range(len(values)), key=lambda index: (losses[index] is None, losses[index] or 0.0))
    return values[order[0]], spread
