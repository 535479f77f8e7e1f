"""One optimizer step as a pure function: (state, batch) to (state, metrics).

The order: sums of loss, weight and gradient over the microbatches (`lax.scan`), then over the devices, then one
division by the total weight, so that the gradient does not depend on how a ragged batch was split; then the global
norm, clipping, the optimizer, the moving average; and if the loss or the norm is not finite, none of these.
Where the model adds terms to the loss (`nn.auxiliary`), all weights are summed before anything else, and what is
differentiated is divided by them already, so that the same holds of their sum.
A step of several updates does this for each of them in turn: see `updates`. A model that counts (`CountedLM`) has a
step of its own, without any of this.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple, TypeVar

import jax
import jax.numpy as jnp
import optax
from jax import Array
from jaxtyping import Bool, Float, Int, Key

from lmlab.contracts import CountedLM, Loss, LossOutput, Optimizer
from lmlab.nn.auxiliary import positive
from lmlab.nn.functional import ModelDef
from lmlab.nn.layout import on_cpu
from lmlab.optim.schedules import value_at
from lmlab.training.carrying import CARRY, start_of
from lmlab.training.experiment import Experiment
from lmlab.training.objective import (
    AUXILIARY,
    Measured,
    Weights,
    WeightsNeeded,
    measured,
    minimised,
    only_what_is_needed,
    weights_of,
)
from lmlab.training.randomness import STEP, row_keys, stream_key
from lmlab.training.state import State
from lmlab.training.updates import Part, in_turn

Params = dict[str, Array]
Batch = Mapping[str, Array]
Metrics = dict[str, tuple[Float[Array, ""], Float[Array, ""]]]
"""By name: (sum, weight). Add over steps and divide once; a weight of 0 means that there is nothing to report."""
Step = Callable[[State, Batch], tuple[State, Metrics]]
Given = TypeVar("Given")
"""What a step gives beside the state: metrics in one form or another."""


@dataclass(frozen=True)
class Recipe:
    """What decides the numbers of a step. Its own numbers may be tracers: make it inside the traced function.

    Attributes:
      model: the network.
      loss: what is minimised.
      optimizer: the update rule.
      seed: root of all randomness.
      clip_norm: the gradient is scaled down to this global norm; None: never.
      ema: decay d of the average e ← d·e + (1-d)·params, starting from the initial parameters; None: no average.
      parts: the updates of a step; none: one of all parameters, by `loss` and `optimizer`.
      frozen: paths of parameters that no update changes: they have no place in the optimizer's state or in an average.
      fixed: parameters that the model has and the state has not, by path.
      rows: of the global batch, for a loss that carries something from row to row.
    """

    model: ModelDef[Any]
    loss: Loss
    optimizer: Optimizer
    seed: int | Int[Array, ""] = 0
    clip_norm: float | Float[Array, ""] | None = None
    ema: float | Float[Array, ""] | None = None
    parts: tuple[Part, ...] = ()
    frozen: tuple[str, ...] = ()
    fixed: Params = field(default_factory=dict)
    rows: int = 0

    @classmethod
    def of(
        cls,
        experiment: Experiment,
        model: ModelDef[Any],
        loss: Loss,
        optimizer: Optimizer,
        parts: tuple[Part, ...],
        frozen: tuple[str, ...] = (),
    ) -> Recipe:
        """The recipe of an experiment and its parts."""
        seed, rows = experiment.seed, experiment.global_batch_size
        return cls(model, loss, optimizer, seed, experiment.clip_norm, experiment.ema, parts, frozen, rows=rows)

    def update_rule(self) -> optax.GradientTransformationExtraArgs:
        """The optimizer for the state's parameters; its `update` is given the number of the `step`."""
        roles = {path: role for path, role in self.model.roles.items() if path not in self.fixed}
        return optax.with_extra_args_support(self.optimizer.transformation(roles))

    def part(self, part: Part, params: Params) -> tuple[Recipe, Params]:
        """The recipe of one of the updates, and its own of all parameters."""
        fixed = {**self.fixed, **{path: value for path, value in params.items() if path not in part.paths}}
        own = {path: params[path] for path in part.paths}
        return replace(self, loss=part.loss, optimizer=part.optimizer, ema=None, parts=(), fixed=fixed), own

    def learning(self, params: Params) -> tuple[Recipe, Params]:
        """The recipe of the parameters that learn, the frozen ones being fixed, and those that learn."""
        fixed = {path: params[path] for path in self.frozen}
        own = {path: value for path, value in params.items() if path not in fixed}
        return replace(self, frozen=(), fixed=fixed), own


def make_init(recipe: Recipe) -> Callable[[Key[Array, ""]], State]:
    """A pure function from a key (`stream_key(seed, INIT)`) to the state before the first step."""

    def init(key: Key[Array, ""]) -> State:
        params = recipe.model.init(key)
        one, own = recipe.learning(params)
        zero = jnp.zeros((), jnp.int32)
        opt_state = {"update": _first(one, own), "guard": {"skipped": zero, "skipped_in_a_row": zero}}
        if recipe.ema is not None:
            opt_state["ema"] = own
        carry = start_of(recipe.loss, recipe.model.bind(params), recipe.rows)
        return State(zero, params, opt_state, {} if carry is None else {CARRY: carry})

    return init


def _first(recipe: Recipe, params: Params) -> Any:
    """The optimizer's first state, or those of all updates by name."""
    if not recipe.parts:
        return recipe.update_rule().init(params)
    each = {part.name: recipe.part(part, params) for part in recipe.parts}
    return {name: one.update_rule().init(own) for name, (one, own) in each.items()}


def make_step(recipe: Recipe, *, microbatches: int = 1, axis_name: str | None = None) -> Step:
    """The training step.

    Args:
      recipe: what to compute.
      microbatches: parts that the batch is computed in, one after the other; the rows per device must divide.
      axis_name: the mapped axis of devices to sum over (pmap); None where the compiler does it (jit).

    Returns:
      `step(state, batch)`. Each leaf of `batch` has the rows as its first axis. Metrics, each (sum, weight):
      the loss's own, `loss`, `auxiliary/NAME` of each term that the model adds, `grad_norm` (before clipping),
      `learning_rate` where the optimizer has one, and `skipped`. The metrics of a skipped step, `skipped` aside, are
      (0, 0).
    """

    if isinstance(recipe.model.bind(recipe.model.shapes), CountedLM):
        return _counting(recipe, axis_name)

    def update(recipe: Recipe, state: State, batch: Batch, key: Key[Array, ""]) -> tuple[State, Metrics]:
        rows = dict(batch), state.model_state.get(CARRY), row_keys(key, _global_rows(batch, axis_name))
        parts = _Parts(microbatches, getattr(recipe.loss, "together", 1))
        (gradients, output), carry = _mean_gradients(_measure(recipe, state.step, key), state, rows, parts, axis_name)
        norm = optax.tree.norm(gradients)
        # The norm is finite only if every gradient is (and none is so large, 1e19, that its square is not).
        finite = _all_finite(output) & jnp.isfinite(norm)
        new = _guard(finite, lambda: _update(recipe, state, _clip(gradients, norm, recipe.clip_norm), carry), state)
        return new, _metrics(recipe, state.step, output, norm, finite)

    def step(state: State, batch: Batch) -> tuple[State, Metrics]:
        one, own = recipe.learning(state.params)
        before = state._replace(params=own)
        if recipe.parts:
            after, metrics = in_turn(one, update)(before, batch)
        else:
            after, metrics = update(one, before, batch, stream_key(recipe.seed, STEP, state.step))
        return after._replace(params={**state.params, **after.params}), metrics

    return step


def _counting(recipe: Recipe, axis_name: str | None) -> Step:
    """The step of a model that counts: the loss of the batch, then its counts; neither in parts."""

    def step(state: State, batch: Batch) -> tuple[State, Metrics]:
        if axis_name is not None:
            batch = jax.lax.all_gather(dict(batch), axis_name, tiled=True)
        model = recipe.model.bind(state.params)
        output = jax.tree.map(jnp.float32, LossOutput(*recipe.loss(model, batch, None, state.step)))
        sums = {**output.metrics, "loss": (output.total, output.weight)}
        # What has never occurred may be impossible: infinite nats, which no mean survives.
        metrics = jax.tree.map(lambda x: jnp.where(jnp.isfinite(output.total), x, 0.0), sums)
        metrics["skipped"] = (jnp.zeros(()), jnp.ones(()))
        return state._replace(step=state.step + 1, params=model.count(batch)), metrics

    return step


def many_steps(step: Callable[[State, Batch], tuple[State, Given]]) -> Callable[[State, Batch], tuple[State, Given]]:
    """Several steps in one program, for models that are dispatch-bound.

    The leaves of the batch and of the metrics have the steps as their first axis.
    """

    def steps(state: State, batches: Batch) -> tuple[State, Given]:
        return jax.lax.scan(step, state, batches)

    return steps


def _global_rows(batch: Batch, axis_name: str | None) -> Int[Array, " B"]:
    """Positions of these rows in the global batch, of which each mapped device holds one block."""
    rows = jnp.arange(len(next(iter(batch.values()))), dtype=jnp.int32)
    return rows if axis_name is None else rows + jax.lax.axis_index(axis_name) * len(rows)


Rows = tuple[Batch, Any, Key[Array, " B"]]
"""What is read, what is carried (None: nothing) and the random keys: each leaf has the rows as its first axis."""
Sums = tuple[Params, LossOutput]
"""Gradients by path, and what the loss returned."""
Measure = Callable[[Params, Rows], Measured]
Gradient = Callable[[Rows], tuple[Params, tuple[LossOutput, Any]]]


def _measure(recipe: Recipe, step: Int[Array, ""], key: Key[Array, ""]) -> Measure:
    """A function of (params, rows): what the loss returned, and the terms that the model added."""

    def measure(params: Params, rows: Rows) -> Measured:
        batch, carry, keys = rows
        return measured(recipe.model.bind({**recipe.fixed, **params}), recipe.loss, batch, carry, keys, step, key)

    return measure


def _gradient_of(measure: Measure, params: Params, weights: Weights) -> Gradient:
    """A function of rows: the gradient of what is minimised; what the loss returned, and what they carry on."""

    def total(params: Params, rows: Rows) -> tuple[Float[Array, ""], tuple[LossOutput, Any]]:
        found = measure(params, rows)
        total, output = minimised(found, weights)
        return total, (output, found.carry)

    return lambda rows: jax.grad(total, has_aux=True)(params, rows)


class _Parts(NamedTuple):
    """How a batch is computed: in so many parts, which do not split blocks of rows that the loss compares."""

    microbatches: int
    together: int

    def of(self, rows: Any) -> Any:
        """Arrays of rows with a leading axis of the parts."""

        def interleaved(x: Array) -> Array:
            # Part m holds rows m, m+M, m+2M, ...: where rows lie over devices in blocks, each part does too, and
            # nothing has to move. A row here is a block of them, where the loss compares such.
            parts = x.reshape(-1, self.microbatches, self.together, *x.shape[1:]).swapaxes(0, 1)
            return parts.reshape(self.microbatches, -1, *x.shape[1:])

        return jax.tree.map(interleaved, rows)

    def joined(self, parts: Any) -> Any:
        """The inverse."""

        def whole(x: Array) -> Array:
            blocks = x.reshape(self.microbatches, -1, self.together, *x.shape[2:]).swapaxes(0, 1)
            return blocks.reshape(-1, *x.shape[2:])

        return jax.tree.map(whole, parts)


def _mean_gradients(
    measure: Measure, state: State, rows: Rows, parts: _Parts, axis_name: str | None
) -> tuple[Sums, Any]:
    """The gradient of what is minimised and what the loss returned, of the whole batch; what its rows carry on."""
    weights = Weights()
    try:  # most models report no terms, and looking for some first would trace them all twice
        sums, carry = _accumulate(_gradient_of(measure, state.params, weights), state.params, rows, parts)
    except WeightsNeeded:
        weights = _weights(measure, state.params, rows, parts)
        if axis_name is not None:
            weights = jax.lax.psum(weights, axis_name)
        sums, carry = _accumulate(_gradient_of(measure, state.params, weights), state.params, rows, parts)
    if axis_name is not None:
        sums = jax.lax.psum(sums, axis_name)
    gradients, output = sums
    if not weights:
        # A batch without a single target has sums of 0: its gradient is 0, not 0/0.
        divisor = positive(output.weight)
        gradients = {path: leaf / divisor for path, leaf in gradients.items()}
    return (gradients, output), carry


def _weights(measure: Measure, params: Params, rows: Rows, parts: _Parts) -> Weights:
    """What the sums of the loss and of the model's terms are divided by; none where the model reports no term.

    Gradients of sums that are divided by different weights can be added over parts and devices only once they are
    divided: the weights must be known first. They depend on the batch alone, so that this costs no more than counting.
    """

    def weights(rows: Rows) -> Weights:
        if parts.microbatches == 1:
            return weights_of(measure(params, rows))
        each = jax.lax.map(lambda part: weights_of(measure(params, part)), parts.of(rows))
        return jax.tree.map(lambda x: x.sum(0), each)

    return only_what_is_needed(weights, rows)


def _accumulate(gradient: Gradient, params: Params, rows: Rows, parts: _Parts) -> tuple[Sums, Any]:
    """The sums over the microbatches, and what all rows carry on."""
    if parts.microbatches == 1:
        gradients, (output, carry) = gradient(rows)
        return (gradients, output), carry

    def add(sums: Params, part: Rows) -> tuple[Params, tuple[LossOutput, Any]]:
        more, found = gradient(part)
        return {path: sums[path] + leaf for path, leaf in more.items()}, found

    sums, (outputs, carries) = jax.lax.scan(add, jax.tree.map(jnp.zeros_like, params), parts.of(rows))
    return (sums, jax.tree.map(lambda x: x.sum(0), outputs)), parts.joined(carries)


def _all_finite(output: LossOutput) -> Bool[Array, ""]:
    """Whether the loss's sum is finite, and those of the model's terms are."""
    terms = [total for name, (total, _) in output.metrics.items() if name.startswith(AUXILIARY)]
    return jnp.isfinite(sum(terms, output.total))


def _clip(gradients: Params, norm: Float[Array, ""], limit: float | Float[Array, ""] | None) -> Params:
    if limit is None:
        return gradients
    scale = jnp.minimum(1.0, limit / norm)
    return {path: leaf * scale for path, leaf in gradients.items()}


def _update(recipe: Recipe, state: State, gradients: Params, carry: Any) -> State:
    opt_state, model_state = dict(state.opt_state), dict(state.model_state)
    update, opt_state["update"] = recipe.update_rule().update(
        gradients, state.opt_state["update"], state.params, step=state.step
    )
    params = {path: value + update[path] for path, value in state.params.items()}
    if recipe.ema is not None:
        opt_state["ema"] = {
            path: recipe.ema * average + (1 - recipe.ema) * params[path]
            for path, average in state.opt_state["ema"].items()
        }
    if carry is not None:
        model_state[CARRY] = carry
    return state._replace(params=params, opt_state=opt_state, model_state=model_state)


def _guard(finite: Bool[Array, ""], update: Callable[[], State], state: State) -> State:
    """`update()` if all was finite, else `state`; the step is counted either way."""
    if on_cpu():
        # With `where`, XLA:CPU copies the optimizer's moments: new parameters are formed from the old ones once more.
        kept = jax.lax.cond(finite, update, lambda: state)
    else:  # where a branch would make the host wait for `finite`
        kept = jax.tree.map(lambda new, old: jnp.where(finite, new, old), update(), state)
    bad = 1 - finite.astype(jnp.int32)
    counters = state.opt_state["guard"]
    guard = {"skipped": counters["skipped"] + bad, "skipped_in_a_row": (counters["skipped_in_a_row"] + 1) * bad}
    return kept._replace(step=state.step + 1, opt_state={**kept.opt_state, "guard": guard})


def _metrics(
    recipe: Recipe, step: Int[Array, ""], output: LossOutput, norm: Float[Array, ""], finite: Bool[Array, ""]
) -> Metrics:
    one = jnp.ones((), jnp.float32)
    metrics = {**output.metrics, "loss": (output.total, output.weight), "grad_norm": (norm, one)}
    rate = getattr(recipe.optimizer, "learning_rate", None)
    if rate is not None:
        metrics["learning_rate"] = (value_at(rate, step), one)
    metrics = jax.tree.map(lambda x: jnp.where(finite, x, 0.0), metrics)
    return {**metrics, "skipped": (1.0 - finite.astype(jnp.float32), one)}
