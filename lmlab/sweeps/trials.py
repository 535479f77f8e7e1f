"""The trials of a sweep: its settings with its seeds, resolved, and grouped by what they can share."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from lmlab.config import Resolved, build, resolve, resolve_variants
from lmlab.contracts import Spec
from lmlab.errors import ConfigError
from lmlab.registry import launchers
from lmlab.sweeps.halving import Halving
from lmlab.sweeps.ladder import Ladder, beside, rungs
from lmlab.sweeps.space import SEED, Settings, Space, Sweep, settings_of
from lmlab.sweeps.together import shape_hash

ROOTS = ("sweep", "space")
"""The components of a sweep's file that are no part of the experiment, beside launchers and what the sweep names."""


@dataclass(frozen=True)
class Trial:
    """One run of a sweep.

    Attributes:
      settings: what its axes bind, as gin writes it, without those that change nothing in it.
      seed: of the experiment.
      group: number of the group of trials that differ from it in numbers alone.
      resolved: its configuration.
    """

    settings: Settings
    seed: int
    group: int
    resolved: Resolved

    @property
    def id(self) -> str:
        """12 hexadecimal digits of what it computes and how."""
        return self.resolved.hash


@dataclass(frozen=True)
class Plan:
    """What a sweep consists of.

    Attributes:
      name: of the first file.
      sweep: how it is to be run.
      axes: the keys of all axes.
      baseline: what an ablation compares with; None of other sweeps, and of one over compute.
      trials: in the order in which they are run; no two are the same.
      repeated: how many more settings came to a trial that was there already.
      halving: when some are let go of; None: all are trained to the end.
      ladder: what it climbs; None of a sweep that is not over compute.
    """

    name: str
    sweep: Sweep
    axes: tuple[str, ...]
    baseline: Settings | None
    trials: tuple[Trial, ...]
    repeated: int
    halving: Halving | None = None
    ladder: Ladder | None = None


def plan(files: Sequence[str], overrides: Sequence[str], plugins: Sequence[str]) -> Plan:
    """Reads a sweep's files and finds its trials.

    Raises:
      ConfigError: the files are of no sweep, the axes cannot be combined, or a trial cannot be run as written.
    """
    if not files:
        raise ConfigError("a sweep without a gin file has no name: write its axes into a file.")
    asked = resolve(files, overrides, plugins, "sweep", [field.name for field in dataclasses.fields(Sweep)])
    sweep: Sweep = asked.build()
    spaces: list[Space] = [sweep, *(build(spec) for spec in sweep.chain)]
    ladder: Ladder | None = None if sweep.over_compute is None else build(sweep.over_compute)
    halving: Halving | None = None if sweep.halving is None else build(sweep.halving)
    used = [name for name, part in (("ladder", ladder), ("halving", halving)) if part is not None]
    roots = (*ROOTS, *launchers.names(), *used)
    axes = tuple(dict.fromkeys([*(ladder.keys if ladder else ()), *(key for space in spaces for key in space.axes)]))
    if not axes and not sweep.seeds:
        raise ConfigError(f"{files[0]} is of no sweep: bind sweep.axes, sweep.seeds or both (lmlab describe sweep).")
    settings = [one for space in spaces for one in settings_of(space)]
    if ladder is not None:
        found = resolve_variants(files, overrides, plugins, beside(ladder, settings), beside=roots)
        settings = list(rungs(ladder, settings, [_tokens_per_step(variant.resolved.spec) for variant in found]))
    seeds = [{SEED: str(seed)} for seed in sweep.seeds] or [{}]
    bound = [{**one, **seed} for one in settings for seed in seeds]
    found = resolve_variants(files, overrides, plugins, bound, beside=roots)
    _check_axes(axes, [(set(one), set(variant.idle)) for one, variant in zip(bound, found, strict=True)])
    trials: dict[str, Trial] = {}
    groups: dict[str, int] = {}
    for one, variant in zip(bound, found, strict=True):
        spec = variant.resolved.spec
        group = groups.setdefault(shape_hash(spec) if sweep.together else variant.resolved.hash, len(groups))
        own = {key: value for key, value in one.items() if key != SEED and key not in variant.idle}
        trials.setdefault(variant.resolved.hash, Trial(own, spec.kwargs["seed"], group, variant.resolved))
    baseline = next(iter(trials.values())).settings if sweep.combine == "ablate" and ladder is None else None
    ordered = sorted(trials.values(), key=lambda trial: trial.group)
    if halving is not None:
        halving.check(trial.resolved.spec for trial in ordered)
    name, repeated = Path(files[0]).stem, len(bound) - len(trials)
    return Plan(name, sweep, axes, baseline, tuple(ordered), repeated, halving, ladder)


def _tokens_per_step(spec: Spec) -> int:
    return spec.kwargs["global_batch_size"] * spec.kwargs["seq_len"]


def _check_axes(axes: Sequence[str], used: Sequence[tuple[set[str], set[str]]]) -> None:
    """ConfigError for an axis that changes nothing in any trial."""
    for key in axes:
        if not any(key in bound and key not in idle for bound, idle in used):
            raise ConfigError(
                f"the axis '{key}' changes nothing in any trial: what it names is not used. Take it out, or use it."
            )
