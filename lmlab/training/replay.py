"""One step of a run again, on one device, operation by operation: which one was the first that was not finite."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import jax
import jax.numpy as jnp
from jax import Array

from lmlab.config import Resolved
from lmlab.contracts import FrozenDict, Spec
from lmlab.errors import CheckpointError, ConfigError
from lmlab.nn.auxiliary import charge, positive
from lmlab.parallel.mesh import Mesh
from lmlab.training.carrying import CARRY
from lmlab.training.nonfinite import Fault, Watched, watch
from lmlab.training.objective import measured
from lmlab.training.program import Program
from lmlab.training.randomness import STEP, row_keys, stream_key
from lmlab.training.run import Run
from lmlab.training.state import State, skipped_in_a_row


@dataclass(frozen=True)
class Replay:
    """What a step gave when it was run again.

    Attributes:
      step: the step, counted from 0: the one that begins when so many are done.
      rows: the rows of the training split that it reads.
      loss: its loss.
      bad_gradients: paths of the parameters whose gradient is not finite.
      fault: the operation behind what is not finite, with its own causes; None if all is finite, or was given so.
    """

    step: int
    rows: tuple[int, ...]
    loss: float
    bad_gradients: tuple[str, ...]
    fault: Fault | None

    @property
    def finite(self) -> bool:
        """Whether the loss and all gradients are finite."""
        return bool(jnp.isfinite(self.loss)) and not self.bad_gradients

    def text(self) -> str:
        """What a person wants to know about it."""
        rows = ", ".join(map(str, self.rows))
        lines = [f"step {self.step}, rows {rows} of the training split: loss {self.loss:.6g}"]
        if self.bad_gradients:
            shown = ", ".join(self.bad_gradients[:5]) + (", ..." if len(self.bad_gradients) > 5 else "")
            lines.append(f"gradients that are not finite: {shown}")
        if self.finite:
            lines.append("the loss and all gradients are finite on one device")
        elif self.fault is None:
            lines.append("no operation is at fault: a parameter or the batch was not finite already")
        else:
            lines.append(f"first operation at fault: {self.fault.first}")
            lines += [f"  which became nan here: {self.fault}"] if self.fault.cause else []
        return "\n".join(lines)


def replay(folder: str, step: int) -> Replay:
    """Runs step `step` of the run in `folder` again.

    Raises:
      CheckpointError: no checkpoint lies before that step.
      ConfigError: the run has no such step.
    """
    run = Run(folder)
    run.program = Program(
        one_device(run.resolved), saved_tokenizer=run.files.saved_tokenizer(), partitioner=Mesh(data=1)
    )
    if run.program.experiment.updates:
        raise ConfigError(f"{folder} makes several updates in a step; only a step of one can be run again.")
    if not 0 <= step < run.program.experiment.steps:
        raise ConfigError(f"{folder} has the steps 0 to {run.program.experiment.steps - 1}, not {step}.")
    state = state_before(run, step)
    batch = {name: jnp.asarray(rows) for name, rows in run.program.data.train.batch(step).items()}
    loss, gradients = watch(lambda state, batch: loss_and_gradients(run.program, state, batch), state, batch)
    return _report(run.program, step, loss, gradients)


def one_device(resolved: Resolved) -> Resolved:
    """The experiment with one step per dispatch and the whole batch at once."""
    spec = resolved.spec
    kwargs = FrozenDict({**spec.kwargs, "microbatches": 1, "steps_per_dispatch": 1})
    return replace(resolved, spec=Spec(spec.kind, spec.name, kwargs))


def state_before(run: Run, step: int) -> State:
    """The state with which step `step` began: saved, or trained forward to from the nearest checkpoint before it."""
    steps = run.steps()
    for saved in steps:
        if saved > step:
            state = run.restore(saved)[0]
            if int(skipped_in_a_row(state)) >= saved - step:
                # Every update since then was skipped: the state has not changed but for its count of steps.
                return state._replace(step=jnp.asarray(step, jnp.int32))
            break
    earlier = [saved for saved in steps if saved <= step]
    if earlier:
        state, at = run.restore(earlier[-1])[0], earlier[-1]
    elif 0 not in steps and run.program.experiment.init_from is None:
        state, at = run.program.init_state(), 0
    else:
        there = ", ".join(map(str, steps)) or "none"
        raise CheckpointError(f"{run.folder} has no checkpoint at or before step {step} (it has: {there}).")
    compiled = run.program.compile_step() if at < step else None
    while compiled and at < step:
        state, _ = compiled(state, run.program.partitioner.place(run.program.data.train.batch(at)))
        at += 1
    return state


def loss_and_gradients(program: Program, state: State, batch: Mapping[str, Array]) -> tuple[Array, dict[str, Array]]:
    """The loss and its gradient by path, with the random keys of the training step."""
    key, recipe = stream_key(program.experiment.seed, STEP, state.step), program.recipe
    keys = row_keys(key, jnp.arange(len(next(iter(batch.values())))))

    def mean(params: Mapping[str, Array]) -> Array:
        model, carry = program.model.bind(params), state.model_state.get(CARRY)
        output, terms, _ = measured(model, recipe.loss, batch, carry, keys, state.step, key)
        own = {name: term.weight for name, term in terms.items()}
        return output.total / positive(output.weight) + charge(terms, own)

    return jax.value_and_grad(mean)(state.params)


def _report(program: Program, step: int, loss: Watched, gradients: Mapping[str, Watched]) -> Replay:
    bad = tuple(path for path, gradient in gradients.items() if not gradient.finite)
    # What the loss was spoilt by comes first; a gradient alone is asked where the loss is whole.
    suspects = [loss] if not loss.finite else [gradients[path] for path in bad]
    faults = [suspect.fault for suspect in suspects if suspect.fault is not None]
    fault = min(faults, key=lambda fault: fault.first.order, default=None)
    rows = tuple(int(row) for row in program.data.train.rows_of(step))
    return Replay(step, rows, float(loss.value), bad, fault)
