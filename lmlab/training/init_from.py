"""Starting from another run's parameters: which saved array becomes which parameter, and what does not fit."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import jax
from jax import Array

from lmlab.errors import CheckpointError
from lmlab.nn.adapters import ADAPTER
from lmlab.training.checkpoint import Checkpoints
from lmlab.training.experiment import InitFrom
from lmlab.training.run_folder import RunFolder

PREFIX = "params/"


@dataclass(frozen=True)
class Plan:
    """What `init_from` will do.

    Attributes:
      loaded: parameter -> saved parameter.
      new: parameters that keep their fresh values.
      ignored: saved parameters that nothing takes.
      cut: tables of positions that are longer there -> positions here and there.
    """

    loaded: Mapping[str, str] = field(default_factory=dict)
    new: tuple[str, ...] = ()
    ignored: tuple[str, ...] = ()
    cut: Mapping[str, tuple[int, int]] = field(default_factory=dict)

    def report(self, source: object) -> str:
        """What a person wants to know about it."""
        counts = f"{len(self.loaded)} loaded, {len(self.new)} new, {len(self.ignored)} ignored"
        lines = [f"parameters from {source}: {counts}"]
        lines += [f"  {path} ← {saved}" for path, saved in self.loaded.items() if path != saved]
        lines += [f"  {path}: the first {here} of {there} positions" for path, (here, there) in self.cut.items()]
        lines += [f"  new: {', '.join(self.new)}"] if self.new else []
        lines += [f"  ignored: {', '.join(self.ignored)}"] if self.ignored else []
        return "\n".join(lines)


def load_params(
    settings: InitFrom, target: Mapping[str, jax.ShapeDtypeStruct], positions: Collection[str] = ()
) -> tuple[dict[str, Array], Plan]:
    """The parameters of another run that this model takes, and what was decided.

    Args:
      settings: which run, and how its paths are renamed.
      target: this model's parameters by path, with shardings.
      positions: paths of its tables of positions (T, D), of which longer ones are taken as far as they go here.

    Raises:
      CheckpointError: there is no such checkpoint, a parameter is missing there, or shapes differ.
    """
    folder = RunFolder(Path(settings.run))
    checkpoints = Checkpoints(folder.checkpoints)
    try:
        step = newest(checkpoints, settings)
        saved = checkpoints.note(step).arrays
        there = [name.removeprefix(PREFIX) for name in saved if name.startswith(PREFIX)]
        plan = make_plan(there, target, settings)
        shapes = {new: saved[PREFIX + old][0] for new, old in plan.loaded.items()}
        tables = [path for path in positions if path in shapes and _longer(shapes[path], target[path])]
        cut = {path: (target[path].shape[0], shapes[path][0]) for path in tables}
        plan = replace(plan, cut=cut)
        wanted: dict[str, Any] = {
            PREFIX + old: _whole(target[new], shapes[new]) if new in cut else target[new]
            for new, old in plan.loaded.items()
        }
        arrays = checkpoints.arrays(step, wanted)
    finally:
        checkpoints.close()
    found = {new: arrays[PREFIX + old] for new, old in plan.loaded.items()}
    return found | {path: _first(found[path], target[path]) for path in cut}, plan


def _longer(shape: tuple[int, ...], wanted: jax.ShapeDtypeStruct) -> bool:
    return shape[1:] == wanted.shape[1:] and shape[0] > wanted.shape[0]


def _whole(wanted: jax.ShapeDtypeStruct, shape: tuple[int, ...]) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(shape, wanted.dtype, sharding=wanted.sharding)


def _first(table: Array, wanted: jax.ShapeDtypeStruct) -> Array:
    """The first rows of a table, laid out as wanted."""
    return jax.jit(lambda table: table[: wanted.shape[0]], out_shardings=wanted.sharding)(table)


def newest(checkpoints: Checkpoints, settings: InitFrom) -> int:
    """The step that the settings ask for, or the newest; CheckpointError if there is none."""
    steps = checkpoints.steps()
    if not steps:
        raise CheckpointError(f"init_from.run = '{settings.run}': no checkpoint there ({checkpoints.folder}).")
    return steps[-1] if settings.step is None else settings.step


def make_plan(saved: Iterable[str], target: Iterable[str], settings: InitFrom) -> Plan:
    """Who takes what, by path.

    Raises:
      CheckpointError: two saved parameters get the same path, or a parameter is neither there nor allowed to miss.
    """
    target = list(target)
    renamed: dict[str, str] = {}
    for old in saved:
        new = rename(old, settings.rename)
        if new in renamed:
            raise CheckpointError(f"init_from.rename turns both '{renamed[new]}' and '{old}' into '{new}'.")
        renamed[new] = old
    adapted = [path for path in renamed if path.startswith(ADAPTER) and path not in target]
    if adapted:
        raise CheckpointError(
            f"init_from: {settings.run} has an adapter ({adapted[0]}) that this run has not. Make one model of both "
            f"first, lmlab merge {settings.run} --run DIR, and start from that."
        )
    missing = [path for path in target if path not in renamed]
    may_be_new = (*settings.allow_missing, f"^{ADAPTER}")
    refused = [path for path in missing if not any(re.search(rule, path) for rule in may_be_new)]
    if refused:
        raise CheckpointError(
            f"init_from: {settings.run} has no {', '.join(refused)}. It has: {', '.join(renamed)}. Rename saved paths "
            "with init_from.rename, or allow fresh values with init_from.allow_missing."
        )
    loaded = {path: renamed[path] for path in target if path in renamed}
    ignored = tuple(old for new, old in renamed.items() if new not in loaded)
    return Plan(loaded, tuple(missing), ignored)


def rename(path: str, rules: Iterable[tuple[str, str]]) -> str:
    """The path after the first rule that matches."""
    for pattern, replacement in rules:
        if re.search(pattern, path):
            return re.sub(pattern, replacement, path)
    return path
