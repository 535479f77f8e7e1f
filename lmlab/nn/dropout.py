"""Dropout whose masks belong to rows of the batch, not to the batch."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Float, Key

Rate = float | Array
"""A probability in [0, 1): a number, or a tracer of one."""


class Dropout:
    """Zeroes entries with probability `rate` and scales the others by 1 / (1 - rate) (Srivastava et al. 2014).

    The mask of a row is a function of that row's key alone, so that it does not depend on which other rows are in
    the batch, on microbatches or on devices. A plain object and not a module: a traced rate in a module's attribute
    would become part of its state.

    Args:
      rate: probability of zeroing an entry; may be a tracer.
    """

    def __init__(self, rate: Rate) -> None:
        self.rate = rate

    @property
    def off(self) -> bool:
        """Whether the rate is known to be zero before anything is traced."""
        return isinstance(self.rate, int | float) and self.rate == 0

    def __call__(
        self, x: Float[Array, "B *N"], keys: Key[Array, " B"] | None, site: int | Array
    ) -> Float[Array, "B *N"]:
        """x with each row's own mask; `keys` None is the identity. Each place that drops has its own `site`."""
        if keys is None or self.off:
            return x
        keys = jax.vmap(jax.random.fold_in, (0, None))(keys, site)
        kept = jax.vmap(lambda key: jax.random.bernoulli(key, 1 - jnp.asarray(self.rate), x.shape[1:]))(keys)
        return jnp.where(kept, x / jnp.asarray(1 - self.rate, x.dtype), 0)
