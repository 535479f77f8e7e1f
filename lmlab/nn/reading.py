"""What a causal model is told about the tokens that it reads, in the form that sequence mixers need."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax.numpy as jnp
from jax import Array
from jaxtyping import Bool, Float, Int


class Reading(NamedTuple):
    """Which tokens of a call belong together, and which are there at all.

    Attributes:
      positions: each token's place in its document, (B or 1, T).
      segment_ids: without a cache, the document of each token (0 is padding); None where each row is one.
      reads: with a cache, whether a token is there; those that are not stand at the end of their row. None: all are.
    """

    positions: Int[Array, "B T"]
    segment_ids: Int[Array, "B T"] | None = None
    reads: Bool[Array, "B T"] | None = None

    @classmethod
    def of(
        cls,
        tokens: Int[Array, "B T"],
        positions: Int[Array, "B T"] | None,
        segment_ids: Int[Array, "B T"] | None,
        length: Int[Array, " B"] | None,
    ) -> Reading:
        """From the arguments of `CausalLM.hidden`.

        Args:
          tokens: ids.
          positions: None counts on from the start of the row, or from what it has read.
          segment_ids: documents without a cache; with one, 0 at tokens that are not there.
          length: tokens that each row of the cache has read; None without a cache.
        """
        if positions is None:
            start = jnp.zeros(1, jnp.int32) if length is None else length
            positions = start[:, None] + jnp.arange(tokens.shape[1])
        if length is None:
            return cls(positions, segment_ids)
        return cls(positions, reads=None if segment_ids is None else segment_ids != 0)

    @property
    def starts(self) -> Bool[Array, "B T"] | None:
        """Where a document begins that is not the row's first one; None where there are no documents."""
        if self.segment_ids is None:
            return None
        segments = self.segment_ids
        return jnp.concatenate((jnp.zeros_like(segments[:, :1], bool), segments[:, 1:] != segments[:, :-1]), 1)

    @property
    def counts(self) -> Int[Array, " B"] | int:
        """Tokens that each row reads."""
        return self.positions.shape[1] if self.reads is None else self.reads.sum(1, dtype=jnp.int32)

    def masked(self, x: Float[Array, "B T *N"]) -> Float[Array, "B T *N"]:
        """`x`, zero at tokens that are not there."""
        if self.reads is None:
            return x
        return jnp.where(self.reads.reshape(*self.reads.shape, *[1] * (x.ndim - 2)), x, 0)


class StackCache(NamedTuple):
    """What a stack of blocks has read.

    Attributes:
      layers: what each block keeps, a pytree with leading axes (L, B); inside one block, its own part.
      length: tokens that each row has read.
    """

    layers: Any
    length: Int[Array, " B"]
