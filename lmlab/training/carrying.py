"""Losses whose rows go on from the batch before, as `contracts.Loss` has them: asked in one way with those that do not.

What they carry is `None` in all that follows where they carry nothing, and then no part of any program.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from jax import Array
from jaxtyping import Int, Key

from lmlab.contracts import Loss, LossOutput

CARRY = "carry"
"""Where in `State.model_state` it is."""


def start_of(loss: Loss, model: Any, rows: int) -> Any:
    """What `rows` rows carry that have read nothing."""
    start = getattr(loss, "start", None)
    return None if start is None else start(model, rows)


def sums_of(
    loss: Loss, model: Any, batch: Mapping[str, Array], carry: Any, keys: Key[Array, " B"] | None, step: Int[Array, ""]
) -> tuple[LossOutput, Any]:
    """The loss's sums, and what the rows carry on."""
    if carry is None:
        return LossOutput(*loss(model, batch, keys, step)), None
    carries: Any = loss
    output, carry = carries.carried(model, batch, carry, keys, step)
    return LossOutput(*output), carry
