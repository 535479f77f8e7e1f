"""Charges on the states of a recurrent network (Merity et al. 2017, arXiv:1708.02182, section 4.4)."""

from __future__ import annotations

import jax.numpy as jnp
from jax import Array
from jaxtyping import Float, Int

from lmlab.nn.auxiliary import report


class ActivationCharges:
    """Terms of a recurrent model's loss: `activation` (AR), `temporal_activation` (TAR).

    AR is the mean of the squares of the last layer's outputs after dropout, TAR that of the squares of their changes
    before it, from one step to the next: means over all entries, as in the authors' code (the paper writes norms).
    Padding does not count, nor a change from one document to another.

    A plain object, because its numbers may be tracers.

    Args:
      activation: coefficient of AR, alpha; 2 in the paper.
      temporal: coefficient of TAR, beta; 1 in the paper.
    """

    def __init__(self, activation: float | Array, temporal: float | Array) -> None:
        self.activation, self.temporal = activation, temporal

    def report(
        self, dropped: Float[Array, "T B D"], raw: Float[Array, "T B D"], segment_ids: Int[Array, "B T"] | None
    ) -> None:
        """Reports the terms that are not known to be zero: see `nn.auxiliary`."""
        if all(isinstance(number, int | float) and number == 0 for number in (self.activation, self.temporal)):
            return
        time, batch = raw.shape[:2]
        segments = jnp.ones((time, batch), jnp.int32) if segment_ids is None else segment_ids.T
        there = (segments != 0).astype(jnp.float32)
        together = there[1:] * (segments[1:] == segments[:-1])
        changes = raw[1:].astype(jnp.float32) - raw[:-1].astype(jnp.float32)
        report("activation", *_mean_square(dropped.astype(jnp.float32), there), self.activation)
        report("temporal_activation", *_mean_square(changes, together), self.temporal)


def _mean_square(x: Float[Array, "T B D"], there: Float[Array, "T B"]) -> tuple[Array, Array]:
    """The squares of the entries that are there, over D, summed; and how many steps there are."""
    return ((x * x).mean(-1) * there).sum(), there.sum()
