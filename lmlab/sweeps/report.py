"""What a sweep has found: its variants, best first, each compared with the baseline seed by seed."""

from __future__ import annotations

import ast
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

from lmlab.config import ABSENT, diff, spell_value
from lmlab.contracts import Value
from lmlab.errors import ConfigError
from lmlab.sweeps.direction import Better, better
from lmlab.sweeps.results import SweepResults, Trial
from lmlab.sweeps.statistics import Cell, Difference, MainEffect, Mean, difference, holm, main_effect, mean

USUAL_METRIC = "valid/nats_per_token"


@dataclass(frozen=True)
class Variant:
    """All trials of equal settings, one for each seed.

    Attributes:
      settings: axis -> value.
      label: what tells it from the other variants, in short.
      trials: in the order of their seeds.
      values: seed -> the metric at the end, of the finished trials that have it as a finite number.
      mean: of the values; None without any.
      difference: from the baseline; None for the baseline itself, without one, and where no seed is in both.
      changes: how its resolved configuration differs from the baseline's: path, there, here.
    """

    settings: Mapping[str, str]
    label: str
    trials: tuple[Trial, ...]
    values: Mapping[int, float]
    mean: Mean | None = None
    difference: Difference | None = None
    changes: tuple[tuple[str, str, str], ...] = ()

    @property
    def seconds(self) -> float | None:
        """Mean wall time of a finished trial."""
        found = [trial.seconds for trial in self._finished if trial.seconds is not None]
        return sum(found) / len(found) if found else None

    @property
    def tokens(self) -> float | None:
        """Mean tokens that a finished trial was trained on."""
        return sum(trial.tokens for trial in self._finished) / len(self._finished) if self._finished else None

    @property
    def parameters(self) -> int | None:
        """Of its model, where a checkpoint tells."""
        return next((trial.parameters for trial in self._finished if trial.parameters is not None), None)

    @property
    def unfinished(self) -> dict[str, int]:
        """How many of its trials have each status but `ok`."""
        found = [trial.status for trial in self.trials if trial.status != "ok"]
        return {status: found.count(status) for status in dict.fromkeys(found)}

    @cached_property
    def _finished(self) -> list[Trial]:
        return [trial for trial in self.trials if trial.status == "ok"]


@dataclass(frozen=True)
class Report:
    """A sweep's results on one metric.

    Attributes:
      results: what was read.
      metric: its name.
      better: which direction of it is.
      variants: best first; those without a result come last.
      baseline: what the others are compared with; None: nothing is compared.
      effects: what each axis does, averaged over everything else.
    """

    results: SweepResults
    metric: str
    better: Better
    variants: tuple[Variant, ...]
    baseline: Variant | None
    effects: tuple[MainEffect, ...]

    @property
    def notes(self) -> list[str]:
        """What a reader must know to read means and differences, one line each."""
        return list(_notes(self))

    @property
    def side_notes(self) -> list[str]:
        """The same for bootstrap intervals and costs."""
        return list(_side_notes(self))


def make_report(
    results: SweepResults,
    metric: str | None = None,
    baseline: Mapping[str, str] | None = None,
    direction: Better | None = None,
) -> Report:
    """Compares a sweep's variants.

    Args:
      results: see `read_results`.
      metric: the number at the end of each trial that counts; None: `valid/nats_per_token`, or else the first one that
        is known to be better lower or higher.
      baseline: settings that choose what the others are compared with; None: what the sweep names.
      direction: which is better; None: by the metric's name.

    Raises:
      ConfigError: no finished trial has the metric, its direction is not known, or no variant or several are the
        baseline.
    """
    metric = _metric(results, metric, direction)
    direction = better(metric, direction)
    plain = _variants(results, metric)
    chosen = _baseline(plain, results.baseline if baseline is None else baseline, asked=baseline is not None)
    variants = plain if chosen is None else _compared(plain, chosen)
    sign = 1 if direction == "lower" else -1
    ordered = sorted(
        variants, key=lambda variant: (variant.mean is None, sign * variant.mean.value if variant.mean else 0)
    )
    cells = [Cell(variant.settings, seed, value) for variant in variants for seed, value in variant.values.items()]
    effects = (main_effect(axis, cells) for axis in results.axes)
    return Report(results, metric, direction, tuple(ordered), chosen, tuple(e for e in effects if e is not None))


def _metric(results: SweepResults, asked: str | None, direction: Better | None) -> str:
    there = results.metrics
    if asked is not None:
        if there and asked not in there:
            raise ConfigError(f"no finished trial ends with '{asked}'. They end with: {', '.join(sorted(there))}.")
        return asked
    if USUAL_METRIC in there or not there:
        return USUAL_METRIC
    for name in sorted(there, key=lambda name: name.startswith("train/")):
        try:
            better(name, direction)
        except ConfigError:
            continue
        return name
    raise ConfigError(f"choose a --metric, and say which is --better. The trials end with: {', '.join(sorted(there))}.")


def _variants(results: SweepResults, metric: str) -> list[Variant]:
    groups: dict[frozenset[tuple[str, str]], list[Trial]] = {}
    for trial in results.trials:
        groups.setdefault(frozenset(trial.settings.items()), []).append(trial)
    label = labels([group[0].settings for group in groups.values()])
    found = []
    for group, name in zip(groups.values(), label, strict=True):
        trials = tuple(sorted(group, key=lambda trial: trial.seed))
        finals = {t.seed: t.final[metric] for t in trials if t.status == "ok" and metric in t.final}
        values = {seed: value for seed, value in finals.items() if math.isfinite(value)}
        found.append(Variant(trials[0].settings, name, trials, values, mean(list(values.values())) if values else None))
    return found


def labels(settings: Sequence[Mapping[str, str]]) -> list[str]:
    """A short name for each of some settings: the axes in which they differ, by the ends of their keys.

    Example: of `{"adamw.learning_rate": "0.1", "gpt.layers": "2"}` and `{"adamw.learning_rate": "0.2", "gpt.layers":
    "2"}` they are `learning_rate=0.1` and `learning_rate=0.2`.
    """
    axes = list(dict.fromkeys(axis for one in settings for axis in one))
    varied = [axis for axis in axes if len({one.get(axis) for one in settings}) > 1] or axes
    short = short_names(varied)
    return [", ".join(f"{short[axis]}={one[axis]}" for axis in varied if axis in one) or "(as the file has it)"
            for one in settings]  # fmt: skip


def short_names(axes: Sequence[str]) -> dict[str, str]:
    """Each key's last part; the whole key where two would look the same."""
    ends = [axis.split(".")[-1] for axis in axes]
    return {axis: end if ends.count(end) == 1 else axis for axis, end in zip(axes, ends, strict=True)}


def _baseline(variants: Sequence[Variant], wanted: Mapping[str, str] | None, asked: bool) -> Variant | None:
    """The one variant with these settings."""
    if wanted is None:
        return None
    axes = {axis for variant in variants for axis in variant.settings}
    if strange := [axis for axis in wanted if axis not in axes]:
        raise ConfigError(f"'{strange[0]}' is no axis of this sweep. Its axes: {', '.join(sorted(axes)) or 'none'}.")
    found = [v for v in variants if all(same_text(v.settings.get(axis), value) for axis, value in wanted.items())]
    if len(found) == 1:
        return found[0]
    said = "; ".join(f"{axis} = {value}" for axis, value in wanted.items())
    shown = "".join(f"\n  {variant.label}" for variant in (found or variants)[:10])
    where = "--baseline" if asked else "the sweep's own baseline"
    how = f"{len(found)} variants have" if found else "no variant has"
    raise ConfigError(
        f"{where}: {how} {said}. Name all that is needed to choose one by --baseline 'AXIS = VALUE':{shown}"
    )


def same_text(a: str | None, b: str | None) -> bool:
    """Whether two texts are one value to gin: `1e-3` is `0.001`."""
    return a == b or (a is not None and b is not None and _value(a) == _value(b))


def _value(text: str) -> tuple[str, Any]:
    try:
        value = ast.literal_eval(text.strip())
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        return "text", text.strip()
    return type(value).__name__, value


def _compared(variants: Sequence[Variant], baseline: Variant) -> list[Variant]:
    """The variants with their differences from the baseline, the p values corrected over all of them."""
    others = [variant for variant in variants if variant is not baseline]
    found = [difference(variant.values, baseline.values) for variant in others]
    corrected = holm([one.p if one else None for one in found])
    complete = {
        id(variant): replace(
            variant, difference=one and replace(one, holm=p), changes=tuple(_changes(variant, baseline))
        )
        for variant, one, p in zip(others, found, corrected, strict=True)
    }
    return [complete.get(id(variant), variant) for variant in variants]


def _changes(variant: Variant, baseline: Variant) -> Iterable[tuple[str, str, str]]:
    """How the resolved configurations differ; only the settings do, where one was never resolved."""
    there, here = (_configurations(side) for side in (baseline, variant))
    seeds = sorted(there.keys() & here.keys())
    if seeds:
        for path, before, after in diff(there[seeds[0]], here[seeds[0]]):
            yield path, _spelled(before), _spelled(after)
        return
    for axis in dict.fromkeys([*baseline.settings, *variant.settings]):
        before, after = baseline.settings.get(axis, "(not there)"), variant.settings.get(axis, "(not there)")
        if before != after:
            yield axis, before, after


def _spelled(value: Value) -> str:
    return "(not there)" if value is ABSENT else spell_value(value)


def _configurations(variant: Variant) -> dict[int, Any]:
    return {trial.seed: trial.configuration for trial in variant.trials if trial.configuration is not None}


def _notes(report: Report) -> Iterable[str]:
    yield f"{report.metric}: {report.better} is better. ± and [ ]: 95 % t interval over seeds."
    compared = [variant.difference for variant in report.variants if variant.difference is not None]
    if report.baseline is None:
        yield "Nothing is compared: the sweep names no baseline. Choose one by --baseline 'AXIS = VALUE'."
    elif report.baseline.mean is None:
        yield "Nothing is compared: the baseline has no result yet."
    tested = sum(one.holm is not None for one in compared)
    if tested:
        yield (
            "Differences are from the baseline, seed by seed; p is of the paired t test, corrected for "
            f"{tested} comparison{'s' * (tested > 1)} (Holm); the intervals are not."
        )
    single = sum(variant.mean.count == 1 for variant in report.variants if variant.mean)
    if single:
        yield f"One seed tells nothing about the spread: {_variants_of(single)} no interval."
    flat = sum(one.mean.interval is None and one.mean.count > 1 for one in compared)
    if flat:
        yield (f"Without spread there is no interval: {_variants_of(flat)} the same difference in every seed (p is 1 "
               "where that is zero).")  # fmt: skip
    failed = sum(trial.failed for trial in report.results.trials)
    if failed:
        among = len(report.results.trials)
        yield f"Means leave out what failed ({failed} of {among} trials): see which, before you trust them."
    uneven = sum(0 < len(variant.values) < len(variant.trials) for variant in report.variants)
    if uneven:
        yield f"{_variants_of(uneven)} a result for some of the seeds only: its place in the table is by these."
    odd = [trial for variant in report.variants for trial in variant.trials
           if trial.status == "ok" and trial.seed not in variant.values]  # fmt: skip
    if odd:
        ids = ", ".join(trial.id for trial in odd[:5]) + " ..." * (len(odd) > 5)
        yield f"Finished without a finite {report.metric}, and left out: {len(odd)} trials ({ids})."


def _side_notes(report: Report) -> Iterable[str]:
    if any(variant.seconds is not None for variant in report.variants):
        yield "s/trial is the wall time of a finished trial, with whatever was compiled in it."
    if any(variant.difference is not None and variant.difference.bootstrap is not None for variant in report.variants):
        yield "Bootstrap (BCa, over seeds) is too narrow for few seeds: it holds 82 % at 5 and 88 % at 8, t holds 95 %."


def _variants_of(count: int) -> str:
    return f"{count} variant{' has' if count == 1 else 's have'}"
