"""Several updates in one step: a generator and its critic, an encoder that is trained more often than its decoder."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Bool, Int

from lmlab.contracts import Loss, Optimizer
from lmlab.training.randomness import STEP, stream_key
from lmlab.training.state import State

if TYPE_CHECKING:
    from lmlab.training.step import Batch, Metrics, Params, Recipe, Step

UpdateOnce = Callable[["Recipe", State, "Batch", Array], tuple[State, "Metrics"]]
"""`(recipe, state, batch, key) -> (state, metrics)`: one guarded update of all the parameters of a state."""


@dataclass(frozen=True)
class Part:
    """One of the updates of a step: see the settings `update`.

    Attributes:
      name: of its metrics and its optimizer's state.
      loss: what it minimises.
      optimizer: its update rule.
      paths: the parameters that it changes.
      repeats: times that it is made in a step.
      every, begin, end: the steps in which it is made.
    """

    name: str
    loss: Loss
    optimizer: Optimizer
    paths: tuple[str, ...]
    repeats: int = 1
    every: int = 1
    begin: int = 0
    end: int | None = None

    @property
    def always(self) -> bool:
        """Whether it is made in every step."""
        return self.every == 1 and self.begin == 0 and self.end is None

    def due(self, step: Int[Array, ""]) -> Bool[Array, ""]:
        """Whether it is made in a step (from 0)."""
        due = (step >= self.begin) & ((step + 1) % self.every == 0)
        return due if self.end is None else due & (step < self.end)


def in_turn(recipe: Recipe, update: UpdateOnce) -> Step:
    """The step that makes the updates of a recipe one after the other, on the same batch.

    The finite guard skips each update by itself, and counts the steps in a row in which it skipped one. The moving
    average moves once, at the end, and not in such a step. A metric has its update's name before its own; those of an
    update that is not made are (0, 0), and those of one that is repeated are sums. `skipped` is the step's.
    """

    def step(state: State, batch: Batch) -> tuple[State, Metrics]:
        params, rules = state.params, dict(state.opt_state["update"])
        metrics: Metrics = {}
        bad = jnp.zeros(())
        for part in recipe.parts:
            (own, rules[part.name]), found = _made(recipe, part, state._replace(params=params), batch, update)
            params = {**params, **own}
            metrics |= {f"{part.name}/{name}": pair for name, pair in found.items()}
            bad += found["skipped"][0]
        opt_state = {**state.opt_state, "update": rules, "guard": _counted(state.opt_state["guard"], bad)}
        if recipe.ema is not None:
            opt_state["ema"] = _averaged(recipe.ema, state.opt_state["ema"], params, bad > 0)
        metrics["skipped"] = (jnp.minimum(bad, 1.0), jnp.ones(()))
        return State(state.step + 1, params, opt_state, state.model_state), metrics

    return step


def _made(recipe: Recipe, part: Part, state: State, batch: Batch, update: UpdateOnce) -> tuple[Any, Metrics]:
    """What an update makes of its own parameters and its optimizer's state, and its metrics, if it is due."""
    one, own = recipe.part(part, state.params)
    root = stream_key(recipe.seed, f"{STEP}/{part.name}", state.step)

    def once(carry: Any, turn: Array) -> tuple[Any, Metrics]:
        opt_state = {"update": carry[1], "guard": state.opt_state["guard"]}
        before = State(state.step, carry[0], opt_state, state.model_state)
        after, metrics = update(one, before, batch, jax.random.fold_in(root, turn))
        return (after.params, after.opt_state["update"]), metrics

    def made(start: Any) -> tuple[Any, Metrics]:
        if part.repeats == 1:
            return once(start, jnp.zeros((), jnp.int32))
        end, metrics = jax.lax.scan(once, start, jnp.arange(part.repeats))
        return end, jax.tree.map(lambda x: x.sum(0), metrics)

    start = (own, state.opt_state["update"][part.name])
    if part.always:
        return made(start)
    shapes = jax.eval_shape(made, start)[1]
    nothing = jax.tree.map(lambda shape: jnp.zeros(shape.shape, shape.dtype), shapes)
    return jax.lax.cond(part.due(state.step), made, lambda start: (start, nothing), start)


def _counted(counters: Mapping[str, Array], bad: Array) -> dict[str, Array]:
    """The finite guard's counters after a step with so many skipped updates."""
    skipped = bad.astype(jnp.int32)
    in_a_row = jnp.where(skipped > 0, counters["skipped_in_a_row"] + 1, 0)
    return {"skipped": counters["skipped"] + skipped, "skipped_in_a_row": in_a_row}


def _averaged(decay: Any, averages: Params, params: Params, stays: Bool[Array, ""]) -> Params:
    moved = {path: decay * average + (1 - decay) * params[path] for path, average in averages.items()}
    return jax.tree.map(lambda new, old: jnp.where(stays, old, new), moved, averages)
