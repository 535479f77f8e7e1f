"""Laws of training: of the step, of its layouts, and of runs that are stopped and go on."""

from __future__ import annotations

import dataclasses
import shutil
from typing import Any
from unittest import SkipTest

import jax
import numpy as np

from lmlab.config import build
from lmlab.contracts import CountedLM
from lmlab.errors import ConfigError
from lmlab.optim.optimizers import SGD
from lmlab.testing.closeness import assert_close, assert_same
from lmlab.testing.of_losses import ragged
from lmlab.testing.tiny import Tiny
from lmlab.training.loop import train
from lmlab.training.program import Program
from lmlab.training.run import Run
from lmlab.training.state import State
from lmlab.training.step import make_init, make_step

STEPS = 6
LAYOUTS_AGREE = 1e-5
"""Largest difference of a parameter between layouts: sums over devices come in another order."""


def learns_one_batch(tiny: Tiny) -> None:
    """On one batch, over and over, the loss falls."""
    program = tiny.program()
    step, state = program.compile_step(), program.init_state()
    batch = program.data.train.batch(0, program.partitioner.rows(16))
    losses = []
    for _ in range(15):
        state, metrics = step(state, program.partitioner.place(batch))
        losses.append(float(metrics["loss"][0] / metrics["loss"][1]))
    assert np.isfinite(losses).all() and losses[-1] < losses[0], losses


def microbatches_change_nothing(tiny: Tiny) -> None:
    """A ragged batch computed in 4 parts gives the gradient and the metrics of the batch computed at once."""
    program = tiny.program()
    recipe = dataclasses.replace(program.recipe, optimizer=SGD(1.0), clip_norm=None)
    batch, state = ragged(program, 16), jax.jit(make_init(recipe))(program.key)
    whole, metrics = jax.jit(make_step(recipe))(state, batch)
    split, same = jax.jit(make_step(recipe, microbatches=4))(state, batch)
    assert_close((split.params, same), (whole.params, metrics), atol=LAYOUTS_AGREE)


def layouts_agree(tiny: Tiny) -> None:
    """One device, a mesh of all devices and pmap come to the same parameters."""
    count = _devices()
    counts = isinstance(tiny.program().abstract_model, CountedLM)
    rule = {} if counts else {"optimizer": "@sgd"}  # Adam's would hide a gradient that is too large everywhere
    one = _trained(tiny.program(**rule))
    for layout in ({"mesh.data": count}, {"partitioner": "@pmap", "pmap.devices": count}):
        found = _trained(tiny.program(**rule, **layout))
        assert_close(found, one, rtol=0, atol=LAYOUTS_AGREE, what=str(layout))


def agrees_with_one_device(tiny: Tiny) -> None:
    """It comes to the parameters that one device comes to."""
    one = _trained(tiny.program(optimizer="@sgd", partitioner="@mesh", **{"mesh.data": 1}))
    assert_close(_trained(tiny.program(optimizer="@sgd")), one, rtol=0, atol=LAYOUTS_AGREE)


def gives_back_what_it_takes(tiny: Tiny) -> None:
    """A state that is exported and loaded again is the same state, of the shapes that are promised to checkpoints."""
    program = tiny.program()
    exported = program.partitioner.export(program.init_state())
    values = jax.device_get(exported)
    promised = jax.tree.map(lambda leaf: (leaf.shape, leaf.dtype), program.abstract_state)
    assert jax.tree.map(lambda leaf: (leaf.shape, leaf.dtype), exported) == promised
    again = jax.device_get(program.partitioner.export(program.partitioner.load(exported)))
    assert_same(again, values)


def measures_the_same_anywhere(tiny: Tiny) -> None:
    """Finite numbers, the same each time, and on one device and on all of them."""
    count = _devices()
    found = []
    for layout in ({}, {"mesh.data": count}, {"partitioner": "@pmap", "pmap.devices": count}):
        program = tiny.program(**layout)
        measure = _bound(program)
        state = program.init_state()
        found += [measure(state), measure(state)]
    assert found[0] and all(np.isfinite(value) for value in found[0].values())
    for other in found[1:]:
        assert_close(other, found[0])


def goes_on_where_it_stopped(tiny: Tiny) -> None:
    """A run that goes on from its middle ends with the bits, and the records, of the run that was not stopped there."""
    settings = {"steps": STEPS, "eval_every": 2, "finite_guard": "@finite_guard", "checkpoints.every": STEPS // 2}
    try:
        whole = train(tiny.resolved(**settings), tiny.folder / "whole")
    except ConfigError as error:
        if isinstance(error.__context__, ModuleNotFoundError):
            raise SkipTest(str(error)) from None  # an optional dependency
        raise
    records, state = _records(whole), _state(whole)
    shutil.copytree(whole.folder, tiny.folder / "again")
    again = train(tiny.resolved(**settings), tiny.folder / "again", from_step=STEPS // 2)
    assert whole.status == again.status == "finished"
    assert _records(again) == records
    assert_same(_state(again), state)


def _devices() -> int:
    count = min(jax.device_count(), 8)
    if count == 1:
        raise SkipTest("there is one device only; set XLA_FLAGS=--xla_force_host_platform_device_count=8")
    return count


def _trained(program: Program, steps: int = 2) -> dict[str, np.ndarray]:
    step, state = program.compile_step(), program.init_state()
    rows = program.partitioner.rows(16)
    for k in range(steps):
        batch = {**program.data.train.batch(k, rows)}
        if "weights" in batch:
            batch["weights"] = np.asarray(ragged(program, 16)["weights"])
        state, _ = step(state, program.partitioner.place(batch))
    return jax.device_get(program.partitioner.export(state).params)


def _bound(program: Program) -> Any:
    return build(program.experiment.evaluators[0]).bind(program)


def _records(run: Run) -> list[dict[str, Any]]:
    return [{name: value for name, value in record.items() if name != "timing"} for record in run.metrics()]


def _state(run: Run) -> State:
    """The state that a run ended with, on the host."""
    return jax.device_get(run.program.partitioner.export(run.state))


STEP_LAWS = (learns_one_batch, microbatches_change_nothing, layouts_agree)
RUN_LAWS = (goes_on_where_it_stopped,)
PARTITIONER_LAWS = (agrees_with_one_device, gives_back_what_it_takes, goes_on_where_it_stopped)
EVALUATOR_LAWS = (measures_the_same_anywhere, goes_on_where_it_stopped)
