"""The trials of a sweep: its settings with its seeds, resolved, and grouped by what they can share."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from lmlab.config import Resolved, Variant, build, resolve, resolve_variants
from lmlab.contracts import Spec
from lmlab.errors import ConfigError
from lmlab.registry import launchers
from lmlab.sweeps.halving import Halving
from lmlab.sweeps.ladder import Ladder, beside, rungs
from lmlab.sweeps.search import Optuna
from lmlab.sweeps.space import SEED, Settings, Space, Sweep, check_for_search, settings_of
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
      search: what proposes the settings; None: they are all known.
      asked_for: every setting as it was asked for, with the id of the trial that it came to; once for each seed.
    """

    name: str
    sweep: Sweep
    axes: tuple[str, ...]
    baseline: Settings | None
    trials: tuple[Trial, ...]
    repeated: int
    halving: Halving | None = None
    ladder: Ladder | None = None
    search: Optuna | None = None
    asked_for: tuple[tuple[Settings, str], ...] = ()


def plan(
    files: Sequence[str],
    overrides: Sequence[str],
    plugins: Sequence[str],
    proposed: Sequence[Settings] = (),
) -> Plan:
    """Reads a sweep's files and finds its trials.

    Args:
      files, overrides, plugins: as for `config.resolve`.
      proposed: of a sweep with a search: the settings that were proposed so far.

    Raises:
      ConfigError: the files are of no sweep, the axes cannot be combined, or a trial cannot be run as written.
    """
    if not files:
        raise ConfigError("a sweep without a gin file has no name: write its axes into a file.")
    asked = resolve(files, overrides, plugins, "sweep", [field.name for field in dataclasses.fields(Sweep)])
    sweep: Sweep = asked.build()
    spaces: list[Space] = [sweep, *(build(spec) for spec in sweep.chain)]
    parts = _Parts(
        *(None if spec is None else build(spec) for spec in (sweep.over_compute, sweep.halving, sweep.search))
    )
    climbed = parts.ladder.keys if parts.ladder else ()
    axes = tuple(dict.fromkeys([*climbed, *(key for space in spaces for key in space.axes)]))
    if not axes and not sweep.seeds:
        raise ConfigError(f"{files[0]} is of no sweep: bind sweep.axes, sweep.seeds or both (lmlab describe sweep).")

    def variants(bound: Sequence[Settings]) -> Sequence[Variant]:
        return resolve_variants(files, overrides, plugins, bound, beside=parts.roots)

    settings = _settings(sweep, spaces, parts, proposed, variants)
    bound = [{**one, **seed} for one in settings for seed in [{SEED: str(seed)} for seed in sweep.seeds] or [{}]]
    found = list(zip(bound, variants(bound), strict=True))
    if parts.search is None:
        _check_axes(axes, [(set(one), set(variant.idle)) for one, variant in found])
    trials = _trials(found, sweep.together)
    if parts.halving is not None:
        parts.halving.check(trial.resolved.spec for trial in trials)
    return Plan(
        name=Path(files[0]).stem,
        sweep=sweep,
        axes=axes,
        baseline=trials[0].settings if sweep.combine == "ablate" and parts.ladder is None else None,
        trials=tuple(sorted(trials, key=lambda trial: trial.group)),
        repeated=len(bound) - len(trials),
        halving=parts.halving,
        ladder=parts.ladder,
        search=parts.search,
        asked_for=tuple((_without_the_seed(one), variant.resolved.hash) for one, variant in found),
    )


class _Parts(NamedTuple):
    """What a sweep may have beside its spaces."""

    ladder: Ladder | None
    halving: Halving | None
    search: Optuna | None

    @property
    def roots(self) -> tuple[str, ...]:
        """The components whose bindings are no part of the experiment."""
        names = (("ladder", self.ladder), ("halving", self.halving), ("optuna", self.search))
        return (*ROOTS, *launchers.names(), *(name for name, part in names if part is not None))


def _settings(
    sweep: Sweep,
    spaces: Sequence[Space],
    parts: _Parts,
    proposed: Sequence[Settings],
    variants: Callable[[Sequence[Settings]], Sequence[Variant]],
) -> list[Settings]:
    """All settings of a sweep, without seeds."""
    if parts.search is not None:
        check_for_search(sweep)
        return list(proposed)
    settings = [one for space in spaces for one in settings_of(space)]
    if parts.ladder is None:
        return settings
    found = variants(beside(parts.ladder, settings))
    return list(rungs(parts.ladder, settings, [_tokens_per_step(variant.resolved.spec) for variant in found]))


def _trials(found: Sequence[tuple[Settings, Variant]], together: bool) -> list[Trial]:
    """The trials that settings come to, no two the same."""
    trials: dict[str, Trial] = {}
    groups: dict[str, int] = {}
    for one, variant in found:
        spec = variant.resolved.spec
        group = groups.setdefault(shape_hash(spec) if together else variant.resolved.hash, len(groups))
        own = {key: value for key, value in _without_the_seed(one).items() if key not in variant.idle}
        trials.setdefault(variant.resolved.hash, Trial(own, spec.kwargs["seed"], group, variant.resolved))
    return list(trials.values())


def _without_the_seed(one: Settings) -> Settings:
    return {key: value for key, value in one.items() if key != SEED}


def _tokens_per_step(spec: Spec) -> int:
    return spec.kwargs["global_batch_size"] * spec.kwargs["seq_len"]


def _check_axes(axes: Sequence[str], used: Sequence[tuple[set[str], set[str]]]) -> None:
    """ConfigError for an axis that changes nothing in any trial."""
    for key in axes:
        if not any(key in bound and key not in idle for bound, idle in used):
            raise ConfigError(
                f"the axis '{key}' changes nothing in any trial: what it names is not used. Take it out, or use it."
            )
