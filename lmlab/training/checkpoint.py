"""Checkpoints: the state and what belongs to it, committed together, in one folder per step; over orbax.

The state is saved as a flat table of named arrays, and beside it stands a `Note`: the data position, the length
of metrics.jsonl, the Spec, and shape, dtype and checksum of every array. A state is restored only onto a target
whose names, shapes and dtypes are exactly those of the note, and then compared with the checksums. Arrays that never
change are saved once, for all checkpoints (see `frozen`).
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import logging
import os
import re
import shutil
import sys
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import orbax.checkpoint as ocp
from jax import Array

from lmlab.errors import CheckpointError, LmlabError, RunFolderError
from lmlab.training.checksum import checksums
from lmlab.training.experiment import Checkpoints as Policy
from lmlab.training.files import WAY_OUT, cannot_write, writing
from lmlab.training.frozen import FrozenArrays
from lmlab.training.metrics_file import Position

Tree = TypeVar("Tree")

# What fails in orbax reaches the caller as an exception; its own reports of that, with tracebacks, are not for people.
logging.getLogger("absl").addFilter(lambda record: f"{os.sep}orbax{os.sep}" not in record.pathname)
# Of several arrays that cannot be written, one is reported so; asyncio shows the others when they are collected.
logging.getLogger("asyncio").addFilter(lambda record: "orbax" not in record.getMessage())


def _report(unraisable: Any, then: Callable[[Any], None] = sys.unraisablehook) -> None:
    # After the first array that cannot be written, tensorstore's other writes call back into a loop that is gone.
    if not (unraisable.exc_type is RuntimeError and str(unraisable.exc_value) == "Event loop is closed"):
        then(unraisable)


sys.unraisablehook = _report

_UNFINISHED = re.compile(r"^\d+\.orbax-checkpoint-tmp")


@dataclass(frozen=True)
class Note:
    """What is committed together with the arrays.

    Attributes:
      step: optimizer steps done; also the index of the next batch.
      fingerprint: of the data pipeline, so that a changed one is refused.
      metrics: where metrics.jsonl ended.
      evaluated: the last step at which the evaluators ran (-1: never).
      hooked: the last step after which the hooks ran.
      interval: sums of the metrics since the last record, exact (see `interval.Interval`).
      score: the value that `keep_best` orders by, if this step was evaluated.
      spec: the experiment, as JSON.
      arrays: name -> (shape, dtype, checksum) of every array.
      frozen: names of those of them that are saved once for all checkpoints.
    """

    step: int
    fingerprint: Mapping[str, Any]
    metrics: Position
    evaluated: int
    hooked: int
    interval: Mapping[str, Any]
    score: float | None
    spec: Mapping[str, Any]
    arrays: Mapping[str, tuple[tuple[int, ...], str, int]] = field(default_factory=dict)
    frozen: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """Plain data, with a digest over itself."""
        plain = json.loads(json.dumps(dataclasses.asdict(self)))
        return {**plain, "digest": _digest(plain)}

    @classmethod
    def from_json(cls, saved: Mapping[str, Any]) -> Note:
        """The inverse of `to_json`; ValueError if the digest does not agree."""
        plain = {name: value for name, value in saved.items() if name != "digest"}
        if _digest(plain) != saved.get("digest"):
            raise ValueError("its note does not agree with its digest")
        arrays = {name: (tuple(shape), dtype, total) for name, (shape, dtype, total) in plain["arrays"].items()}
        metrics, frozen = Position(**plain["metrics"]), tuple(plain.get("frozen", ()))
        return cls(**{**plain, "metrics": metrics, "arrays": arrays, "frozen": frozen})


class Checkpoints:
    """The saved states of one run.

    Saving is asynchronous: `save` returns when the arrays have been copied. Old checkpoints are deleted only
    after newer ones are committed.

    Args:
      folder: where they are.
      policy: which ones are kept; None to only read.
      frozen: names of the arrays that never change. They are saved with the first checkpoint, in `frozen/` beside the
        folder.
    """

    def __init__(self, folder: Path, policy: Policy | None = None, frozen: Collection[str] = ()) -> None:
        self.folder = folder.absolute()
        self.policy = policy
        self._frozen, self._beside = frozenset(frozen), FrozenArrays(self.folder.parent / "frozen")
        self._shared = False  # whether it is known to be there
        if policy is not None and jax.process_index() == 0:
            with writing(self.folder):
                self.folder.mkdir(parents=True, exist_ok=True)
                for entry in self.folder.iterdir():
                    if _UNFINISHED.match(entry.name):  # a save that was killed
                        shutil.rmtree(entry)
        handlers: Any = {"state": ocp.PyTreeCheckpointHandler(), "note": ocp.JsonCheckpointHandler()}
        options = ocp.CheckpointManagerOptions(create=False, max_to_keep=None, enable_async_checkpointing=True)
        self._manager = ocp.CheckpointManager(self.folder, options=options, item_handlers=handlers)
        self._scores: dict[int, float | None] = {}

    def steps(self) -> list[int]:
        """The steps of all committed checkpoints, ascending."""
        if not self.folder.is_dir():
            return []
        return sorted(self._manager.all_steps())

    def save(self, state: Any, note: Note) -> None:
        """Begins to save `state` (a tree of global arrays) with its note; waits for the save before.

        Raises:
          RunFolderError: the folder cannot be written. What was saved before is still there.
          CheckpointError: there is a checkpoint of this step or a later one.
        """
        self.wait()
        if (steps := self.steps()) and steps[-1] >= note.step:  # orbax refuses an older one in silence
            raise CheckpointError(
                f"{self.folder} has a checkpoint of step {steps[-1]} already, not before {note.step}."
            )
        arrays = named(state)
        sums = checksums(arrays)
        filled = {name: array for name, array in arrays.items() if array.size}
        frozen = {name: array for name, array in filled.items() if name in self._frozen}
        note = dataclasses.replace(
            note,
            arrays={name: (tuple(a.shape), str(a.dtype), sums[name]) for name, a in arrays.items()},
            frozen=tuple(frozen),
        )
        args = ocp.args.Composite(
            state=ocp.args.PyTreeSave({name: array for name, array in filled.items() if name not in frozen}),
            note=ocp.args.JsonSave(note.to_json()),
        )
        try:
            if frozen and not self._shared and not (steps and set(self.note(steps[-1]).frozen) == set(frozen)):
                self._beside.save(frozen)
            self._shared = True
            self._manager.save(note.step, args=args, force=True)
        except Exception as error:
            raise self._failed_save(note.step, error) from error
        self._scores[note.step] = note.score

    def wait(self) -> None:
        """Returns when everything begun is committed, after deleting what the policy does not keep."""
        try:
            self._manager.wait_until_finished()
        except Exception as error:
            raise self._failed_save(max(self._scores, default=0), error) from error
        if self.policy is None or not self._scores:
            return
        steps = self.steps()
        for step in steps:
            if step not in self._scores:
                self._scores[step] = self.note(step).score if self.policy.keep_best else None
        keep = kept(steps, self._scores, self.policy)
        for step in steps:
            if step not in keep:
                self._manager.delete(step)

    def note(self, step: int) -> Note:
        """What was saved beside the arrays.

        Raises:
          CheckpointError: there is no such checkpoint, or it is damaged.
        """
        if step not in (steps := self.steps()):
            there = ", ".join(map(str, steps)) or "none"
            raise CheckpointError(f"{self.folder} has no checkpoint of step {step}. It has: {there}.")
        try:
            item = self._manager.restore(step, args=ocp.args.Composite(note=ocp.args.JsonRestore()))["note"]
            return Note.from_json(item)
        except Exception as error:
            raise self._damaged(step, _first_line(error)) from error

    def restore(self, step: int, target: Tree) -> Tree:
        """The state of `step`, laid out as `target` says.

        Args:
          step: one of `steps()`.
          target: a tree of ShapeDtypeStructs with shardings (`Partitioner.abstract`).

        Raises:
          CheckpointError: it is missing, damaged, or not of the target's names, shapes and dtypes.
        """
        arrays = self.arrays(step, named(target), whole=True)
        return jax.tree.unflatten(jax.tree.structure(target), [arrays[name] for name in named(target)])

    def arrays(self, step: int, target: Mapping[str, jax.ShapeDtypeStruct], whole: bool = False) -> dict[str, Array]:
        """The arrays named in `target`, checked against it and against their checksums; all there are, if `whole`."""
        note = self.note(step)
        differences = differing(note.arrays, target, whole)
        if differences:
            lines = "\n".join(f"  {line}" for line in differences)
            raise CheckpointError(f"the checkpoint {self.folder / str(step)} does not fit this program:\n{lines}")
        filled = {name: shape for name, shape in target.items() if shape.size}
        beside = {name: shape for name, shape in filled.items() if name in note.frozen}
        own = {name: shape for name, shape in filled.items() if name not in beside}
        found = {**self._own(step, own, whole), **self._saved_once(beside)}
        wrong = [name for name, total in checksums(found).items() if total != note.arrays[name][2]]
        if wrong:
            what = f"the checksum of {', '.join(wrong[:3])} does not agree"
            raise self._without_shared(what) if wrong[0] in beside else self._damaged(step, what)
        empty = {name: _empty(shape) for name, shape in target.items() if not shape.size}
        return {**found, **empty}

    def _own(self, step: int, target: Mapping[str, jax.ShapeDtypeStruct], whole: bool) -> dict[str, Array]:
        """Arrays of the checkpoint of a step."""
        if not target:
            return {}
        restore_args = ocp.checkpoint_utils.construct_restore_args(dict(target))
        args = ocp.args.PyTreeRestore(item=dict(target), restore_args=restore_args, partial_restore=not whole)
        try:
            return dict(self._manager.restore(step, args=ocp.args.Composite(state=args))["state"])
        except Exception as error:
            raise self._damaged(step, _first_line(error)) from error

    def _saved_once(self, target: Mapping[str, jax.ShapeDtypeStruct]) -> dict[str, Array]:
        """Arrays that all checkpoints share."""
        if not target:
            return {}
        try:
            return self._beside.arrays(target)
        except Exception as error:
            raise self._without_shared(_first_line(error)) from error

    def _without_shared(self, what: str) -> CheckpointError:
        return CheckpointError(
            f"{self._beside.folder} holds what all checkpoints of the run share, and is missing or damaged: {what}. "
            "Put it back, or start again with --fresh."
        )

    def close(self) -> None:
        """Waits for what was begun, and ends orbax's threads."""
        try:
            self.wait()
        finally:
            self._manager.close()

    def _failed_save(self, step: int, error: Exception) -> LmlabError:
        path = self.folder / str(step)
        safe = f"Checkpoints that are safe: {', '.join(map(str, self.steps())) or 'none'}."
        for number in WAY_OUT:
            if os.strerror(number) in str(error):  # tensorstore raises ValueError, with the system's words in it
                return RunFolderError(f"{cannot_write(path, OSError(number, ''))} {safe}")
        return RunFolderError(f"{path} could not be saved: {_first_line(error)}. {safe} Run the same command again.")

    def _damaged(self, step: int, what: str) -> CheckpointError:
        earlier = [other for other in self.steps() if other < step]
        way_out = f"go on from the one before with --from-step {earlier[-1]}" if earlier else "start again with --fresh"
        return CheckpointError(
            f"the checkpoint {self.folder / str(step)} is damaged: {what}. Nothing was deleted; {way_out}."
        )


def kept(steps: Iterable[int], scores: Mapping[int, float | None], policy: Policy) -> set[int]:
    """The steps that the policy keeps: the last ones, and the best of those that were evaluated (ties: the newer)."""
    ordered = sorted(steps)
    last = set(ordered[-policy.keep_last :])
    sign = 1 if policy.lower_is_better else -1
    scored = [(sign * score, -step) for step in ordered if (score := scores.get(step)) is not None and score == score]
    return last | {-negative for _, negative in sorted(scored)[: policy.keep_best]}


def named(tree: Any) -> dict[str, Any]:
    """The leaves of a tree by name, `opt_state/update/0/mu/embedding`, in the tree's own order."""
    leaves, _ = jax.tree_util.tree_flatten_with_path(tree)
    flat = {jax.tree_util.keystr(path, simple=True, separator="/"): leaf for path, leaf in leaves}
    if len(flat) != len(leaves):
        raise ValueError("two leaves of the state have the same name: " + ", ".join(flat))
    return flat


def differing(
    saved: Mapping[str, tuple[tuple[int, ...], str, int]], target: Mapping[str, jax.ShapeDtypeStruct], whole: bool
) -> list[str]:
    """One line for each array that is missing, not asked for (if `whole`), or of another shape or dtype."""
    lines = [f"{name} is not in the checkpoint" for name in sorted(target.keys() - saved.keys())]
    if whole:
        lines += [f"{name} is in the checkpoint only" for name in sorted(saved.keys() - target.keys())]
    for name in sorted(saved.keys() & target.keys()):
        there, here = saved[name][:2], (tuple(target[name].shape), str(target[name].dtype))
        if there != here:
            lines.append(f"{name} is {there[1]}{list(there[0])} there, {here[1]}{list(here[0])} here")
    return lines


def _empty(shape: jax.ShapeDtypeStruct) -> Array:
    """An array without elements, which orbax cannot save."""
    return jax.jit(lambda: jnp.zeros(shape.shape, shape.dtype), out_shardings=shape.sharding)()


def _digest(plain: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(plain, sort_keys=True).encode()).hexdigest()


def _first_line(error: BaseException) -> str:
    text = str(error).strip().split("\n")[0].rstrip(".")
    return (text[:300] + "...") if len(text) > 300 else text or type(error).__name__
