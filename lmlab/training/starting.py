"""A state before the first step, or a run that stands there, whose parameters are from elsewhere."""

from __future__ import annotations

from collections.abc import Mapping

import jax.numpy as jnp
import numpy as np
from jax import Array

from lmlab.config import Resolved, spec_to_json
from lmlab.training.checkpoint import Checkpoints, Note
from lmlab.training.environment import describe_environment
from lmlab.training.metrics_file import Position
from lmlab.training.program import Program
from lmlab.training.run_folder import RunFolder
from lmlab.training.state import State


def with_params(program: Program, state: State, found: Mapping[str, Array]) -> State:
    """The state with these of its parameters exchanged, and their averages, where it keeps some.

    Args:
      program: whose state it is.
      state: as `Program.init_state` makes it; used up.
      found: path -> array, as the state's are laid out.
    """
    exported = program.partitioner.export(state)
    params = {**exported.params, **found}
    opt_state = dict(exported.opt_state)
    if "ema" in opt_state:  # with arrays of its own: `load` takes them over
        opt_state["ema"] = {path: jnp.copy(params[path]) for path in opt_state["ema"]}
    return program.partitioner.load(exported._replace(params=params, opt_state=opt_state))


def write_run(
    folder: RunFolder, resolved: Resolved, program: Program, found: Mapping[str, np.ndarray | Array], how: str
) -> None:
    """A run folder with its first checkpoint, before its first step.

    Args:
      folder: to be made.
      resolved: the configuration.
      program: of it.
      found: parameters by path; others are as an initialisation makes them.
      how: what happened, in one word, for status.json.
    """
    params = {path: jnp.asarray(value) for path, value in found.items()}
    state = with_params(program, program.init_state(), params)
    with folder.locked():
        folder.write_config(resolved)
        folder.write_environment(describe_environment())
        if program.tokenizer is not None:
            folder.write_tokenizer(program.tokenizer.to_json())
        checkpoints = Checkpoints(folder.checkpoints, program.checkpoints)
        try:
            note = Note(0, {}, Position(), -1, -1, {}, None, spec_to_json(resolved.spec))
            checkpoints.save(program.partitioner.export(state), note)
            checkpoints.wait()
        finally:
            checkpoints.close()
        folder.write_status("stopped", 0, program.experiment.steps, how)
