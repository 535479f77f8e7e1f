"""What a training run carries from step to step."""

from __future__ import annotations

from typing import Any, NamedTuple

from jax import Array
from jaxtyping import Float, Int


class State(NamedTuple):
    """Everything that the next step needs: arrays only, so that it is saved, sharded and donated as it is.

    Attributes:
      step: optimizer steps done, skipped ones included, int32.
      params: the parameters by path, float32.
      opt_state: `update`: the optimizer's own state; `guard`: the finite guard's counters; `ema`: the averages of
        the parameters that learn, by path, if the experiment asks for them.
      model_state: `carry`: what each row of the batch hands on to the next batch's, rows first, for a loss that
        carries something (see `contracts.Loss`); else empty.
    """

    step: Int[Array, ""]
    params: dict[str, Float[Array, "..."]]
    opt_state: dict[str, Any]
    model_state: dict[str, Any]


def averaged_params(state: State) -> dict[str, Array]:
    """The parameters to evaluate and generate with: the moving average of those that have one."""
    averages = state.opt_state.get("ema")
    return state.params if averages is None else {**state.params, **averages}


def skipped(state: State) -> Int[Array, ""]:
    """Updates that the finite guard has skipped so far."""
    return state.opt_state["guard"]["skipped"]


def skipped_in_a_row(state: State) -> Int[Array, ""]:
    """Updates that the finite guard has skipped since the last one that was made."""
    return state.opt_state["guard"]["skipped_in_a_row"]
