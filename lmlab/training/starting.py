"""A state before the first step whose parameters are from elsewhere."""

from __future__ import annotations

from collections.abc import Mapping

import jax.numpy as jnp
from jax import Array

from lmlab.training.program import Program
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
