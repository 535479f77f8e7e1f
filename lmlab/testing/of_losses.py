"""Laws of losses: sums, of which only the trainer divides."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Any
from unittest import SkipTest

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from lmlab.config import build
from lmlab.contracts import FrozenDict, LossOutput, Spec
from lmlab.testing.closeness import assert_close
from lmlab.testing.of_models import moved
from lmlab.testing.tiny import Tiny
from lmlab.training.program import Program

B = 5


def gives_float32_sums(tiny: Tiny) -> None:
    """Total, weight and metrics are finite float32 scalars; the weight is not negative."""
    output = _evaluated(tiny.program())
    scalars = [output.total, output.weight, *(part for pair in output.metrics.values() for part in pair)]
    assert all(np.shape(value) == () and value.dtype == jnp.float32 for value in scalars)
    assert all(np.isfinite(value) for value in scalars) and output.weight >= 0


def sums_over_rows_add_up(tiny: Tiny) -> None:
    """The sums over a batch are the sums over its rows (over the blocks of rows that are compared with each other)."""
    program = tiny.program()
    block = getattr(program.loss, "together", 1)
    params, batch = moved(program.model), ragged(program, _rows(program))
    measure = _function(program)
    whole = measure(params, batch)
    # A batch of copies, of which only the first has a weight, is read by the program that reads the whole batch.
    rows = [measure(params, _alone(batch, range(b * block, (b + 1) * block))) for b in range(B)]
    assert_close(jax.tree.map(lambda *parts: sum(parts), *rows), whole)


def _alone(batch: Mapping[str, Array], rows: range) -> dict[str, Array]:
    """B times these rows, of which only the first ones have weights."""
    copies = {name: jnp.concatenate([values[rows.start : rows.stop]] * B) for name, values in batch.items()}
    weights = {name: values.at[len(rows) :].set(0) for name, values in copies.items() if name.endswith("weights")}
    return {**copies, **weights}


ANSWERS = {
    "targets": ("weights", "vocab"),
    "tags": ("weights", "tags"),
    "labels": ("weights", "labels"),
    "starts": ("weights", "places"),
    "ends": ("weights", "places"),
    "follows": ("pair_weights", "two"),
}
"""What batches hold of what is to be found: the field that weighs it, and what it is one of."""


def ignores_what_has_no_weight(tiny: Tiny) -> None:
    """Answers of weight 0 do not matter."""
    program = tiny.program()
    params, batch = moved(program.model), ragged(program, _rows(program))
    time, data = batch["tokens"].shape[-1], program.data
    counts = {"vocab": data.vocab, "tags": len(data.tags), "labels": len(data.labels), "places": time, "two": 2}
    others = {}
    for name, (weights, of) in ANSWERS.items():
        if name in batch and weights in batch and not (name == "labels" and "tags" in batch):
            count = counts[of] or batch["tokens"].shape[1]  # of choices, which have no names
            others[name] = jnp.where(batch[weights] > 0, batch[name], (batch[name] + 1) % count)
    if not others:
        raise SkipTest("its batches hold no answers with weights")
    assert any((others[name] != batch[name]).any() for name in others)
    measure = _function(program)
    changed = measure(params, {**batch, **others})
    assert_close(measure(params, batch), changed)


def is_the_same_without_jit(tiny: Tiny) -> None:
    """Compiled and op by op, the sums are the same."""
    program = tiny.program()
    params, batch = moved(program.model), ragged(program, _rows(program))
    eager = program.loss(program.model.bind(params), batch, None, jnp.zeros((), jnp.int32))
    compiled = _function(program)(params, batch)
    assert_close(compiled, LossOutput(*eager))


def takes_traced_numbers(tiny: Tiny) -> None:
    """Every float of its configuration may be a tracer, so that runs that differ in numbers are one program."""
    program = tiny.program()
    spec: Spec = program.experiment.loss
    numbers = {name: value for name, value in spec.kwargs.items() if isinstance(value, float)}
    params, batch = moved(program.model), ragged(program, _rows(program))

    @jax.jit
    def traced(given: Mapping[str, Any]) -> LossOutput:
        loss = build(Spec(spec.kind, spec.name, FrozenDict({**spec.kwargs, **given})), **program.facts)
        return loss(program.model.bind(params), batch, None, jnp.zeros((), jnp.int32))

    expected = _function(program)(params, batch)
    assert_close(traced(numbers), expected)


def ragged(program: Program, rows: int) -> dict[str, Array]:
    """The first rows of the first training batch, each with fewer weights than the one before it.

    Where a whole row has one weight, every third row has none.
    """
    batch = {name: jnp.asarray(values) for name, values in program.data.train.batch(0, range(rows)).items()}
    for name in ("weights", "pair_weights"):
        if name not in batch:
            continue
        if batch[name].ndim == 1:
            batch[name] = batch[name] * (np.arange(rows) % 3 != 2)
        else:
            time = batch[name].shape[1]
            counts = time - (np.arange(rows) * time) // rows
            batch[name] = batch[name] * (np.arange(time) < counts[:, None])
    return batch


def _rows(program: Program) -> int:
    """B, or as many blocks of rows that are compared with each other."""
    return B * getattr(program.loss, "together", 1)


@functools.lru_cache(maxsize=1)
def _function(program: Program) -> Any:
    """The compiled loss; the same one for laws that ask for the same, one after the other."""
    step = jnp.zeros((), jnp.int32)
    return jax.jit(lambda params, batch: LossOutput(*program.loss(program.model.bind(params), batch, None, step)))


def _evaluated(program: Program) -> LossOutput:
    return _function(program)(moved(program.model), ragged(program, _rows(program)))


LAWS = (
    gives_float32_sums,
    sums_over_rows_add_up,
    ignores_what_has_no_weight,
    is_the_same_without_jit,
    takes_traced_numbers,
)
