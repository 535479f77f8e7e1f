"""Where a token stands: learned vectors, and rotary angles."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax.numpy as jnp
from flax import nnx
from jax import Array
from jaxtyping import Float, Int

from lmlab.nn.linear import Initializer


class LearnedPositions(nnx.Module):
    """A learned vector for each position, added to the embedding (Gehring et al. 2017; GPT-2).

    Args:
      length: number of positions; there is no vector beyond.
      width: D.
      init: of the table (length, D).
    """

    def __init__(self, length: int, width: int, init: Initializer, *, rngs: nnx.Rngs) -> None:
        self.embedding = nnx.Param(init(rngs.params(), (length, width), jnp.float32), role="position")

    def __call__(self, positions: Int[Array, "*N"], dtype: Any) -> Float[Array, "*N D"]:
        """The positions' vectors in the compute dtype."""
        return self.embedding[...][positions].astype(dtype)

    def first(self, time: int, dtype: Any) -> Float[Array, "T D"]:
        """The vectors of the first `time` positions: a slice, whose gradient is none of a gather's scatter."""
        return self.embedding[:time].astype(dtype)


class Rotation(NamedTuple):
    """Cosines and sines of each position's angles, (B or 1, T, K/2) float32."""

    cos: Float[Array, "B T halfK"]
    sin: Float[Array, "B T halfK"]


def rotation(positions: Int[Array, "B T"], head_width: int, base: float = 10_000.0) -> Rotation:
    """Angles position · base^(-2i/K) for i < K/2 (Su et al. 2021, arXiv:2104.09864)."""
    frequencies = base ** (-jnp.arange(0, head_width, 2, dtype=jnp.float32) / head_width)
    angles = positions[..., None].astype(jnp.float32) * frequencies
    return Rotation(jnp.cos(angles), jnp.sin(angles))


def rotate(x: Float[Array, "B H T K"], by: Rotation) -> Float[Array, "B H T K"]:
    """Turns each pair (x_i, x_{i+K/2}) by its angle, in float32: products of queries and keys then depend on distance.

    The pairs are halves of the head, as in GPT-NeoX and Llama; the paper pairs neighbours, which is a permutation of
    the kernel's columns.
    """
    first, second = jnp.split(x.astype(jnp.float32), 2, axis=-1)
    cos, sin = by.cos[:, None], by.sin[:, None]
    return jnp.concatenate((first * cos - second * sin, first * sin + second * cos), -1).astype(x.dtype)
