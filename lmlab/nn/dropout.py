"""Dropout whose masks belong to rows of the batch, not to the batch."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Float, Int, Key

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


def drop_connect(weights: Float[Array, "*N"], rate: Rate, key: Key[Array, ""]) -> Float[Array, "*N"]:
    """Weights of which a share is zero and the others are scaled by 1 / (1 - rate) (Wan et al. 2013, "Regularization of
    neural networks using DropConnect"), as AWD-LSTM's authors do (Merity et al. 2017, arXiv:1708.02182, section 2)."""
    kept = jax.random.bernoulli(key, 1 - jnp.asarray(rate), weights.shape)
    return jnp.where(kept, weights / jnp.asarray(1 - rate, weights.dtype), 0)


class LockedDropout(Dropout):
    """Dropout with one mask for all steps of a row: variational dropout (Gal & Ghahramani 2016, arXiv:1512.05287).

    Args:
      rate: probability of zeroing an entry; may be a tracer.
    """

    def __call__(
        self, x: Float[Array, "B T *N"], keys: Key[Array, " B"] | None, site: int | Array
    ) -> Float[Array, "B T *N"]:
        """x with each row's own mask, the same at all of its steps; `keys` None is the identity."""
        if keys is None or self.off:
            return x
        return x * super().__call__(jnp.ones_like(x[:, :1]), keys, site)


class WordDropout(Dropout):
    """Zeroes the embeddings of words, wherever in a row they stand (Gal & Ghahramani 2016, section 4.2).

    Args:
      rate: probability of zeroing a word's vector; may be a tracer.
    """

    def of_words(
        self, x: Float[Array, "B T D"], tokens: Int[Array, "B T"], keys: Key[Array, " B"] | None, site: int | Array
    ) -> Float[Array, "B T D"]:
        """The vectors x of `tokens`; a row's own draw for each id. `keys` None is the identity."""
        if keys is None or self.off:
            return x

        def of_row(key: Array, ids: Array) -> Array:
            own = jax.vmap(jax.random.fold_in, (None, 0))(jax.random.fold_in(key, site), ids)
            return jax.vmap(lambda key: jax.random.bernoulli(key, 1 - jnp.asarray(self.rate)))(own)

        kept = jax.vmap(of_row)(keys, tokens)[..., None]
        return jnp.where(kept, x / jnp.asarray(1 - self.rate, x.dtype), 0)
