"""A run whose matrices are integers, made of a run by qwix."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from lmlab.config import Resolved, resolve
from lmlab.data.optional import imported
from lmlab.errors import ConfigError, RunFolderError
from lmlab.nn.quantized import SCALE, QuantizedDef, Weights, groups_of, packed
from lmlab.parallel.mesh import Mesh
from lmlab.training.program import Program
from lmlab.training.run import Run
from lmlab.training.run_folder import RunFolder
from lmlab.training.starting import write_run
from lmlab.training.state import averaged_params


def quantize_run(source: Path, run: Path, weights: Weights, step: int | None = None) -> Program:
    """Makes a run folder, with one checkpoint at step 0, whose matrices are integers; gives its program.

    Args:
      source: a run folder; where it keeps an average of its parameters, that is taken.
      run: the run folder to make.
      weights: what the integers are.
      step: of the checkpoint (None: the newest).

    Raises:
      ConfigError: the run has integers already, or an adapter, or no matrix that could become such; qwix is missing.
      RunFolderError: there is something in `run`.
    """
    imported("qwix", "making integers of weights", "qwix")
    target = RunFolder(run)
    if target.exists():
        raise RunFolderError(f"{run} holds a run. Choose another folder with --run DIR.")
    found = Run(source)
    tokenizer = found.files.saved_tokenizer()
    before = Program(found.resolved, saved_tokenizer=tokenizer, partitioner=Mesh(data=1))
    if before.experiment.weights != "float32":
        raise ConfigError(f"the matrices of {source} are {before.experiment.weights} already: name the run it is of.")
    if before.experiment.adapter is not None:
        raise ConfigError(f"{source} has an adapter. Merge it first: lmlab merge {source} --run DIR")
    state, _ = Run(source, before).restore(step)
    params = averaged_params(before.partitioner.export(state))
    resolved = _with_weights(source, weights)
    after = Program(resolved, saved_tokenizer=tokenizer, partitioner=Mesh(data=1))
    if not isinstance(after.model, QuantizedDef) or not after.model.summed:
        raise ConfigError(f"the model '{after.experiment.model.name}' has no matrix that {weights} could keep.")
    values = quantize_params(after.model, params)
    write_run(target, resolved, after, values, "quantized")
    return after


def _with_weights(source: Path, weights: Weights) -> Resolved:
    """The configuration of a run with integers, which keeps no average of them and starts from nothing else."""
    return resolve(
        [str(source / "config.gin")],
        [f"experiment.weights = '{weights}'", "experiment.ema = None", "experiment.init_from = None"],
    )


def quantize_params(model: QuantizedDef, params: Mapping[str, Array]) -> dict[str, Array]:
    """The parameters of a model whose matrices are integers, made of another's by each group's largest number.

    Args:
      model: with such matrices.
      params: of the model of which all parameters are float32.
    """
    found = dict(params)
    for path, axis in model.summed.items():
        number = jnp.int4 if model.bits == 4 else model.shapes[path].dtype
        found[path], found[f"{path}{SCALE}"] = _codes(params[path], axis, number)
    return {path: found[path] for path in model.shapes}


def _codes(array: Array, summed: int, number: Any) -> tuple[Array, Array]:
    """Numbers of this dtype, those of 4 bits packed, and scales."""
    import qwix

    axis, few = array.ndim + summed, number == jnp.int4
    others = [i for i in range(array.ndim) if i != axis]
    tiles = {axis: array.shape[axis] // groups_of(array.shape[axis], 4 if few else 8)}
    made = jax.jit(lambda x: qwix.quantize(x, number, channelwise_axes=others, tiled_axes=tiles))(array)
    scale = made.scale.astype(jnp.float32)
    return (packed(made.qvalue.astype(jnp.int8), axis) if few else made.qvalue), scale
