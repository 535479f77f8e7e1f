"""The teacher of a student: another run's model, which stands beside the student's and does not learn.

The loss says which model it is (`teacher`), so that a run's configuration is whole, and which run its parameters are
from (`run`). They are read once, before the first step, and are part of the state from then on.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
from jax import Array

from lmlab.config import diff, identity, spell_value
from lmlab.data.fingerprints import digest_json
from lmlab.errors import CheckpointError, ConfigError
from lmlab.training.checkpoint import Checkpoints
from lmlab.training.init_from import PREFIX
from lmlab.training.program import TEACHER, Program
from lmlab.training.run_folder import RunFolder

AVERAGED = "opt_state/ema/"


def check_teacher(program: Program) -> None:
    """Whether the run of the loss's teacher, where it has one, is of that model and of this run's tokenizer.

    Raises:
      RunFolderError: there is no run.
      ConfigError: its model is another one, or its ids mean something else.
    """
    if not program.taught_by:
        return
    loss: Any = program.loss
    name, folder = program.experiment.loss.name, RunFolder(Path(loss.run))
    there = folder.resolved().spec.kwargs["model"]
    found = [
        f"  {path}: {spell_value(before)} there, {spell_value(after)} here"
        for path, before, after in diff(identity(there), identity(loss.teacher))
    ]
    if found:
        raise ConfigError(
            f"{name}.run = '{loss.run}' is of another model than {name}.teacher:\n" + "\n".join(found) + "\n"
            f"Bind {name}.teacher and its parameters as they are there."
        )
    saved = folder.saved_tokenizer()
    ours = None if program.tokenizer is None else program.tokenizer.to_json()
    if (None if saved is None else digest_json(saved)) != (None if ours is None else digest_json(ours)):
        raise ConfigError(
            f"{name}.run = '{loss.run}' has {'no' if saved is None else 'another'} tokenizer: a student must read the "
            "ids of its teacher. Choose that run's tokenizer and, where it is fitted, its dataset, or a teacher that "
            "was trained with this run's."
        )


def load_teacher(program: Program, target: Mapping[str, jax.ShapeDtypeStruct]) -> dict[str, Array]:
    """The teacher's parameters by their paths in this model: the averaged ones, where its run has them.

    Args:
      program: of the student.
      target: all parameters of its model, with shardings.

    Raises:
      CheckpointError: there is no such checkpoint, or it lacks a parameter or has it in another shape.
    """
    if not program.taught_by:
        return {}
    loss: Any = program.loss
    checkpoints = Checkpoints(RunFolder(Path(loss.run)).checkpoints)
    try:
        steps = checkpoints.steps()
        if not steps:
            raise CheckpointError(f"the teacher's run {loss.run} has no checkpoint ({checkpoints.folder}).")
        step = steps[-1] if loss.run_step is None else loss.run_step
        there = checkpoints.note(step).arrays
        sources = {}
        for path in program.taught_by:
            own = path.removeprefix(TEACHER)
            sources[path] = AVERAGED + own if AVERAGED + own in there else PREFIX + own
        arrays = checkpoints.arrays(step, {source: target[path] for path, source in sources.items()})
    finally:
        checkpoints.close()
    return {path: arrays[source] for path, source in sources.items()}
