"""Laws of adapters."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np

from lmlab.nn.adapters import ADAPTER, Adapted
from lmlab.nn.functional import Params
from lmlab.testing.closeness import assert_close, assert_same
from lmlab.testing.of_losses import ragged
from lmlab.testing.of_models import moved
from lmlab.testing.tiny import Tiny
from lmlab.training.program import Program

B = 5


def begins_as_the_model_alone(tiny: Tiny) -> None:
    """Before its first step, the loss and the parameters are to the bit those of the model without the adapter."""
    program = tiny.program()
    params = jax.jit(program.model.init)(program.key)
    own = {path: value for path, value in params.items() if not path.startswith(ADAPTER)}
    assert_same(jax.device_get(jax.jit(program.model.merged)(params)), jax.device_get(own))
    assert_same(_loss(program, params), _loss(program, own))


def computes_what_its_merged_parameters_do(tiny: Tiny) -> None:
    """Wherever its parameters are, the model alone has the same loss with the merged ones, and another with its own."""
    program = tiny.program()
    params = moved(program.model)
    merged = jax.jit(program.model.merged)(params)
    assert isinstance(program.model, Adapted) and merged.keys() == program.model.plain.shapes.keys()
    assert_close(_loss(program, params), _loss(program, merged))
    own = {path: params[path] for path in merged}
    assert not np.allclose(_loss(program, own), _loss(program, merged), rtol=1e-7)


def changes_nothing_else(tiny: Tiny) -> None:
    """Steps change every parameter of the adapter, none of those that it stands beside, and keep no state of these."""
    program = tiny.program()
    step, state = program.compile_step(), program.init_state()
    before = jax.device_get(program.partitioner.export(state).params)
    for number in range(2):  # a factor of 0 keeps the other's first gradient at 0
        batch = program.data.train.batch(number, program.partitioner.rows(16))
        state, _ = step(state, program.partitioner.place(batch))
    exported = program.partitioner.export(state)
    changed = {path for path, value in jax.device_get(exported.params).items() if np.any(value != before[path])}
    frozen = set(program.frozen)
    assert frozen and changed == before.keys() - frozen
    kept = {
        str(getattr(key, "key", ""))
        for keys, _ in jax.tree_util.tree_leaves_with_path(exported.opt_state)
        for key in keys
    }
    assert not kept & frozen


def _loss(program: Program, params: Params) -> np.ndarray:
    batch, step = ragged(program, B), jnp.zeros((), jnp.int32)
    loss = jax.jit(lambda params, batch: program.loss(program.model.bind(params), batch, None, step).total)
    return np.asarray(loss(params, batch))


LAWS = (begins_as_the_model_alone, computes_what_its_merged_parameters_do, changes_nothing_else)
