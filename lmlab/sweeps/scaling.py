"""What a sweep over compute has found: a scaling law, the best use of budgets, and how well it foretells sizes."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from lmlab.errors import ConfigError
from lmlab.sweeps.ladder import STEPS
from lmlab.sweeps.report import USUAL_METRIC, labels
from lmlab.sweeps.results import SweepResults, Trial
from lmlab.sweeps.scaling_law import LEVEL, Fit, Optimum, Points, fit
from lmlab.sweeps.statistics import Interval

Counted = Literal["all", "non-embedding"]

_EMBEDDING = re.compile(r"^(embedding|positions|head)/")
_OTHERS = re.compile(r"^(teacher|task_head)/")
"""Parameters that are not of the model: of a teacher, and of a loss."""

NUMBERS = ("E", "A", "alpha", "B", "beta")
BEYOND = 100.0
"""How many times the largest measured budget the frontier is drawn to."""


@dataclass(frozen=True)
class Rung:
    """One run, or one that is to come.

    Attributes:
      label: what tells its setting from those of the other runs of this size.
      seed: of the run; None where a table has none.
      parameters: N.
      tokens: D.
      loss: measured, nats per token; None where it is not trained to its end.
      held_out: whether the law is fitted without it.
    """

    label: str
    seed: int | None
    parameters: float
    tokens: float
    loss: float | None
    held_out: bool

    @property
    def flops(self) -> float:
        """C = 6 N D."""
        return 6 * self.parameters * self.tokens


@dataclass(frozen=True)
class Scaling:
    """A scaling law of some runs.

    Attributes:
      name: of the sweep or the table.
      setting: what these runs have in common and others of the sweep do not; empty where there are no others.
      metric: what L is.
      counted: which parameters N counts.
      fit: the law.
      rungs: all runs, small ones first; those held out and those not trained, too.
    """

    name: str
    setting: str
    metric: str
    counted: Counted
    fit: Fit
    rungs: tuple[Rung, ...]

    def error(self, rung: Rung) -> float | None:
        """By what share of the measured loss the law's differs from it."""
        if rung.loss is None:
            return None
        return float(self.fit.law.loss(rung.parameters, rung.tokens)) / rung.loss - 1

    def frontier(self, budgets: Sequence[float] = ()) -> list[Optimum]:
        """The best use of some budgets C; by default of five up to `BEYOND` times that of the largest run."""
        flops = [rung.flops for rung in self.rungs]
        usual = np.geomspace(min(flops), BEYOND * max(flops), 5)
        return [self.fit.law.optimum(budget) for budget in budgets or (float(f"{c:.1e}") for c in usual)]

    @property
    def notes(self) -> list[str]:
        """What a reader must know, one line each."""
        return list(_notes(self))


def of_points(name: str, points: Points, held_out: int = 0, **options: Any) -> Scaling:
    """The law of a table's points, fitted without those of its `held_out` largest sizes; `options` as of `fit`."""
    sizes = _kept_sizes(sorted(set(points.parameters.tolist())), held_out)
    rows = zip(points.parameters, points.tokens, points.loss, strict=True)
    rungs = [Rung("", None, float(n), float(d), float(loss), float(n) not in sizes) for n, d, loss in rows]
    return _scaling(name, "", "loss", "all", rungs, options)


def of_sweep(
    results: SweepResults,
    *,
    metric: str | None = None,
    counted: Counted = "all",
    held_out: int | None = None,
    best: bool = False,
    sizes_of: Callable[[Trial], Mapping[str, int] | None],
    **options: Any,
) -> list[Scaling]:
    """The law of a sweep's finished trials; one for each of its other settings, where it has axes beside its ladder.

    Args:
      results: see `read_results`. Of a sweep without a ladder, all axes together make the sizes.
      metric: the loss at the end of a trial.
      counted: which parameters N counts: all of the model's, as Hoffmann et al. do, or as Kaplan et al. 2020
        (arXiv:2001.08361) those that neither embed tokens and positions nor project to the vocabulary.
      held_out: how many of the largest sizes the law is fitted without; None: as the ladder says.
      best: one law of the setting of least mean loss at each rung.
      sizes_of: the numbers in a trial's parameters by path, for trials without a checkpoint; None: not known.
      options: as of `fit`.

    Raises:
      ConfigError: no finished trial has the metric, or there is no size to fit to.
      DataError: the finished trials determine no law.
    """
    metric = _metric(results, metric)
    ladder = results.over_compute
    held = held_out if held_out is not None else ladder.held_out if ladder else 0
    keys = (*results.axes, STEPS) if ladder is None else ladder.keys
    groups: dict[frozenset[tuple[str, str]], list[Trial]] = {}
    for trial in results.trials:
        groups.setdefault(frozenset((k, v) for k, v in trial.settings.items() if k not in keys), []).append(trial)
    names = labels([dict(group) for group in groups]) if len(groups) > 1 else [""]
    rungs = {}
    for name, group in zip(names, groups.values(), strict=True):
        rungs[name] = list(_rungs(group, name, metric, counted, held, sizes_of))
    if best and len(rungs) > 1:
        rungs = {"the best setting of each rung": _best_of(list(rungs.values()))}
    return [_scaling(results.name, name, metric, counted, found, options) for name, found in rungs.items()]


def _scaling(
    name: str, setting: str, metric: str, counted: Counted, rungs: Sequence[Rung], options: dict[str, Any]
) -> Scaling:
    ordered = sorted(rungs, key=lambda rung: (rung.parameters, rung.tokens, rung.seed or 0))
    fitted = [(rung.parameters, rung.tokens, rung.loss) for rung in ordered if rung.loss and not rung.held_out]
    points = Points(*np.asarray(fitted, np.float64).reshape(-1, 3).T)
    return Scaling(name, setting, metric, counted, fit(points, **options), tuple(ordered))


def _metric(results: SweepResults, asked: str | None) -> str:
    there = results.metrics
    if not there:
        raise ConfigError(f"no trial of {results.folder} is finished: lmlab status {results.folder}")
    if (asked or USUAL_METRIC) not in there:
        raise ConfigError(f"no finished trial ends with '{asked or USUAL_METRIC}'. Choose a --metric of theirs: "
                          f"{', '.join(sorted(there))}.")  # fmt: skip
    return asked or USUAL_METRIC


def _rungs(
    trials: Sequence[Trial],
    label: str,
    metric: str,
    counted: Counted,
    held_out: int,
    sizes_of: Callable[[Trial], Mapping[str, int] | None],
) -> Iterator[Rung]:
    """The trials of one setting of which the size is known."""
    known = [(trial, sizes) for trial in trials if (sizes := trial.sizes or sizes_of(trial))]
    if held_out and len(known) < len(trials):
        raise ConfigError(
            f"which sizes are the largest cannot be told: {len(trials) - len(known)} trials have no checkpoint, and "
            "their size cannot be had from their configuration here (lmlab check says why). Fit to the others by "
            "--held-out 0."
        )
    each = [count(sizes, counted) for _, sizes in known]
    kept = _kept_sizes(sorted(set(each)), held_out)
    for (trial, _), size in zip(known, each, strict=True):
        loss = trial.final.get(metric) if trial.status == "ok" else None
        if trial.configuration is None or not size:
            continue
        if loss is not None and not (math.isfinite(loss) and loss > 0):
            loss = None
        given = trial.configuration.kwargs
        tokens = given["steps"] * given["global_batch_size"] * given["seq_len"]
        yield Rung(label, trial.seed, float(size), float(tokens), loss, size not in kept)


def count(sizes: Mapping[str, int], counted: Counted) -> int:
    """N: the numbers in a model's parameters, of which the paths are given."""
    own = {path: n for path, n in sizes.items() if not _OTHERS.search(path)}
    return sum(n for path, n in own.items() if counted == "all" or not _EMBEDDING.search(path))


def _kept_sizes(sizes: Sequence[Any], held_out: int) -> set[Any]:
    """What is left of some sizes, in rising order, without the largest."""
    if held_out and held_out >= len(sizes):
        raise ConfigError(f"{held_out} sizes held out leave none of {len(sizes)} to fit a law to.")
    return set(sizes[: len(sizes) - held_out])


def _best_of(settings: Sequence[Sequence[Rung]]) -> list[Rung]:
    """Of every size and number of tokens, the runs of the setting whose loss is least in the mean over seeds."""
    rungs: dict[tuple[float, float], list[list[Rung]]] = {}
    for setting in settings:
        for place in dict.fromkeys((rung.parameters, rung.tokens) for rung in setting):
            there = [rung for rung in setting if (rung.parameters, rung.tokens) == place]
            rungs.setdefault(place, []).append(there)
    return [rung for found in rungs.values() for rung in min(found, key=_mean_loss)]


def _mean_loss(rungs: Sequence[Rung]) -> float:
    losses = [rung.loss for rung in rungs if rung.loss is not None]
    return sum(losses) / len(losses) if losses else math.inf


def _notes(found: Scaling) -> Iterator[str]:
    if found.counted == "all":
        yield "N counts all parameters of the model, embeddings and positions too (as Hoffmann et al. 2022)."
    else:
        yield "N counts no embeddings, positions and projections to the vocabulary (as Kaplan et al. 2020)."
    yield "D counts the positions of all training batches; a budget is C = 6 N D floating-point operations."
    if found.fit.resampled:
        count = len(found.fit.resampled)
        yield (f"Intervals hold the middle {LEVEL:.0%} of {count} fits to points drawn again with replacement: of what "
               "the law is, not of a run's luck. From few points they are too narrow.")  # fmt: skip
    law, smallest = found.fit.law, found.fit.points.loss.min()
    if 0.01 * smallest > law.E:
        yield "E is not seen in these points: nothing in them flattens out. Do not read beyond them."
    if min(law.alpha, law.beta) < 1e-3:
        yield "An exponent is 0: these points do not show what that part of the law does."
    if unfinished := sum(rung.loss is None and not rung.held_out for rung in found.rungs):
        yield f"Left out, since they are not finished or have no finite loss: {unfinished} of {len(found.rungs)} runs."


def to_json(found: Scaling, budgets: Sequence[float] = ()) -> dict[str, Any]:
    """Everything, as plain JSON data."""
    law = found.fit.law
    return {
        "name": found.name, "setting": found.setting, "metric": found.metric, "parameters": found.counted,
        "law": {name: _with_interval(getattr(law, name), found.fit.interval(name)) for name in NUMBERS},
        "exponents": dict(zip(("N_opt", "D_opt"), law.exponents, strict=True)),
        "objective": found.fit.objective, "points": len(found.fit.points), "resamples": len(found.fit.resampled),
        "frontier": [{**best._asdict(), "interval": found.fit.predicted(best.parameters, best.tokens)}
                     for best in found.frontier(budgets)],
        "runs": [
            {"seed": rung.seed, "parameters": rung.parameters, "tokens": rung.tokens, "held_out": rung.held_out,
             "loss": rung.loss, "law": float(law.loss(rung.parameters, rung.tokens)), "error": found.error(rung),
             "interval": found.fit.predicted(rung.parameters, rung.tokens)}
            for rung in found.rungs
        ],
        "notes": found.notes,
    }  # fmt: skip


def _with_interval(value: float, interval: Interval | None) -> dict[str, Any]:
    return {"value": value, "interval": interval}
