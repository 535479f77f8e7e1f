"""What a reproduction does in its time: whole runs where these fit, else an early look at one seed, else nothing."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from lmlab.errors import ConfigError
from lmlab.papers.claims import Claim, Device, Paper, RunPlan

Part = tuple[str, int]
"""A run by its name, with a seed."""

_DURATION = re.compile(r"(\d+(?:\.\d+)?)\s*(s|m|h)")
_MINUTES = {"s": 1 / 60, "m": 1.0, "h": 60.0}


def minutes_of(text: str) -> float:
    """`10m`, `90s`, `2h` as minutes; `full` is infinite.

    Raises:
      ConfigError: it is no such text.
    """
    if text == "full":
        return math.inf
    found = _DURATION.fullmatch(text.strip())
    if not found:
        raise ConfigError(f"--budget {text}: write a time, such as 90s, 10m or 2h, or full.")
    return float(found[1]) * _MINUTES[found[2]]


def seeds_of(run: RunPlan, count: int | None) -> tuple[int, ...]:
    """The first `count` seeds of a run, and then the next numbers; None: its own."""
    if count is None:
        return run.seeds
    more = (seed for seed in range(count + len(run.seeds)) if seed not in run.seeds)
    return (*run.seeds, *more)[:count]


@dataclass
class Selection:
    """What is to be done.

    Attributes:
      checks: claims whose check is to be called.
      parts: runs, and the share of their steps that they are to be at.
      too_long: claims that do not fit, and the minutes that they would take.
      minutes: of everything chosen, by the estimates.
    """

    checks: list[str] = field(default_factory=list)
    parts: dict[Part, float] = field(default_factory=dict)
    too_long: dict[str, float] = field(default_factory=dict)
    minutes: float = 0.0


def select(
    paper: Paper,
    claims: Iterable[Claim],
    missing: Callable[[Claim], Sequence[int | None]],
    trained: Mapping[Part, float],
    device: Device,
    budget: float,
) -> Selection:
    """Goes through the claims in their order, and takes of each what still fits.

    Args:
      missing: the seeds (of a check: None) of a claim for which no number is kept.
      trained: the shares of their steps that runs have behind them.
      device: whose costs count.
      budget: minutes.
    """
    chosen = Selection()
    called: set[str] = set()
    for claim in claims:
        seeds = missing(claim)
        if not seeds:
            continue
        if claim.check is not None:
            cost = 0.0 if claim.check in called or claim.cost is None else claim.cost.on(device)
            if chosen.minutes + cost <= budget:
                called.add(claim.check)
                chosen.checks.append(claim.id)
                chosen.minutes += cost
            else:
                chosen.too_long[claim.id] = cost
            continue
        _select_runs(paper, claim, [seed for seed in seeds if seed is not None], trained, device, budget, chosen)
    return chosen


def _select_runs(
    paper: Paper,
    claim: Claim,
    seeds: Sequence[int],
    trained: Mapping[Part, float],
    device: Device,
    budget: float,
    chosen: Selection,
) -> None:
    """All seeds to the end, else the first one to the latest early band that fits."""
    whole = {(run, seed): 1.0 for run in claim.runs for seed in seeds}
    looks = [{(run, seeds[0]): early.at for run in claim.runs} for early in reversed(claim.early)]
    for wanted in (whole, *looks):
        cost = _cost(paper, wanted, trained, device, chosen)
        if chosen.minutes + cost <= budget:
            chosen.parts |= {part: max(share, chosen.parts.get(part, 0.0)) for part, share in wanted.items()}
            chosen.minutes += cost
            return
    chosen.too_long[claim.id] = _cost(paper, whole, trained, device, chosen)


def _cost(
    paper: Paper, wanted: Mapping[Part, float], trained: Mapping[Part, float], device: Device, chosen: Selection
) -> float:
    """Minutes that are still to be spent, beside what was chosen already."""
    ahead = {part: max(trained.get(part, 0.0), chosen.parts.get(part, 0.0)) for part in wanted}
    return sum(paper.runs[part[0]].cost.on(device) * max(0.0, share - ahead[part]) for part, share in wanted.items())
