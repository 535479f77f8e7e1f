"""Where a token stands: vectors added to it, angles that its queries and keys turn by, or a bias of its scores."""

from __future__ import annotations

import math
from typing import Any, Literal, NamedTuple

import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax import Array
from jaxtyping import Float, Int

from lmlab.errors import ConfigError
from lmlab.nn.linear import Initializer
from lmlab.nn.numbers import Number

PositionKind = Literal["learned", "sinusoidal", "rotary", "alibi", "relative", "none"]


class Rotation(NamedTuple):
    """Cosines and sines of each position's angles, (B or 1, T, K/2) float32."""

    cos: Float[Array, "B T halfK"]
    sin: Float[Array, "B T halfK"]


class Positions(nnx.Module):
    """How a stack of attention layers knows the order of its tokens; a model asks all three methods.

    Args:
      kind: `learned` vectors added to the embedding (Gehring et al. 2017; GPT-2); `sinusoidal` ones; `rotary` angles;
        `alibi`, a penalty for distance; `relative`, a learned bias for each head and range of distances (T5); `none`.
      init: of the table of vectors (length, D), or of biases (buckets, H).
      width: D.
      heads: H.
      head_width: K.
      length: number of learned vectors; there is none beyond.
      base: of rotary angles.
      causal: relative distances reach back only.
      buckets: ranges of relative distances.
      max_distance: the relative distance beyond which all are in the last range.
    """

    def __init__(
        self,
        kind: PositionKind,
        init: Initializer,
        *,
        width: int,
        heads: int,
        head_width: int,
        length: int,
        base: float | Array = 10_000.0,
        causal: bool = True,
        buckets: int = 32,
        max_distance: int = 128,
        rngs: nnx.Rngs,
    ) -> None:
        self.kind, self.heads, self.head_width, self.length, self.base = kind, heads, head_width, length, Number(base)
        self.causal, self.buckets, self.max_distance = causal, buckets, max_distance
        tables = {"learned": ((length, width), "position"), "relative": ((buckets, heads), "bias")}
        shape, role = tables.get(kind, (None, ""))
        table = None if shape is None else nnx.Param(init(rngs.params(), shape, jnp.float32), role=role)
        self.embedding = table if kind == "learned" else None
        self.bias = table if kind == "relative" else None

    @property
    def limit(self) -> int | None:
        """The number of tokens beyond which there is no position; None where there always is one."""
        return self.length if self.kind == "learned" else None

    def require(self, time: int, model: str, length: str = "seq_len") -> None:
        """ConfigError unless there are so many positions.

        Args:
          time: tokens from the start of a row.
          model: the name of the model that has these positions.
          length: what sets their number.
        """
        if self.limit is not None and time > self.limit:
            raise ConfigError(
                f"a {model} with learned positions reads at most {length} = {self.limit} tokens, not {time}. "
                f"Give it fewer, or train with {model}.positions = 'rotary'."
            )

    def add(
        self, x: Float[Array, "B T D"], positions: Int[Array, "B T"] | None, read: Int[Array, " B"] | None
    ) -> Float[Array, "B T D"]:
        """Embedded tokens with the vectors of their places added, where the kind has such.

        Args:
          x: embedded tokens.
          positions: their places; None counts on from what was read.
          read: tokens that each row has read before; None is none.
        """
        time = x.shape[1]
        if self.embedding is not None:
            if positions is None and read is None and time <= self.length:
                # A slice: its gradient is none of a gather's scatter.
                return x + self.embedding[:time].astype(x.dtype)
            return x + self.embedding[...][places(positions, read, time)].astype(x.dtype)
        if self.kind == "sinusoidal":
            return x + sinusoids(places(positions, read, time), x.shape[2]).astype(x.dtype)
        return x

    def rotation(
        self, positions: Int[Array, "B T"] | None, read: Int[Array, " B"] | None, time: int
    ) -> Rotation | None:
        """What turns queries and keys of `time` tokens; None where nothing does. Arguments as in `add`."""
        if self.kind != "rotary":
            return None
        return rotation(places(positions, read, time), self.head_width, self.base.value)

    def score_bias(self, read: Int[Array, " B"] | None, time: int, slots: int) -> Float[Array, "B H T S"] | None:
        """What is added to the scores of `time` tokens and `slots` keys, which count from the row's first token.

        In a row of several documents, the distances within one are right, and the others are never seen.
        """
        if self.kind not in ("alibi", "relative"):
            return None
        distances = jnp.arange(slots) - places(None, read, time)[..., None]
        if self.bias is not None:
            ranges = relative_buckets(distances, self.buckets, self.max_distance, causal=self.causal)
            return jnp.moveaxis(self.bias[...][ranges], -1, 1)
        return -jnp.asarray(alibi_slopes(self.heads))[:, None, None] * jnp.abs(distances)[:, None]


def places(positions: Int[Array, "B T"] | None, read: Int[Array, " B"] | None, time: int) -> Int[Array, "B T"]:
    """Each token's place in its document: as given, or counted on from the start or from what was read."""
    if positions is not None:
        return positions
    start = jnp.zeros(1, jnp.int32) if read is None else read
    return start[:, None] + jnp.arange(time)


def sinusoids(positions: Int[Array, "B T"], width: int) -> Float[Array, "B T D"]:
    """sin(p / 10000^(2i/D)) in column 2i and its cosine in column 2i + 1 (Vaswani et al. 2017, section 3.5)."""
    frequencies = 10_000.0 ** (-jnp.arange(0, width, 2, dtype=jnp.float32) / width)
    angles = positions[..., None].astype(jnp.float32) * frequencies
    pairs = jnp.stack((jnp.sin(angles), jnp.cos(angles)), -1)
    return pairs.reshape(*positions.shape, -1)[..., :width]


def rotation(positions: Int[Array, "B T"], head_width: int, base: float | Array = 10_000.0) -> Rotation:
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


def alibi_slopes(heads: int) -> np.ndarray:
    """Each head's penalty for a unit of distance (Press et al. 2022, arXiv:2108.12409, section 3), (H,) float32.

    2^(-8/n), 2^(-16/n), ... for n heads, n a power of two. For another number: those of the power below it, then every
    second one of those for twice that power, as the authors' released code has it.
    """
    power = 2 ** int(math.log2(heads))

    def of(n: int) -> np.ndarray:
        return 2.0 ** (-8.0 * np.arange(1, n + 1) / n)

    return np.concatenate((of(power), of(2 * power)[::2][: heads - power])).astype(np.float32)


def relative_buckets(distances: Int[Array, "*N"], buckets: int, max_distance: int, *, causal: bool) -> Int[Array, "*N"]:
    """The range of each distance, key's place less query's (Raffel et al. 2020, arXiv:1910.10683, section 2.1).

    Half of the ranges hold one distance each, the others grow by equal ratios up to `max_distance`. Unless `causal`,
    keys behind the query have ranges of their own, half of them all.
    """
    first: Any = 0
    if causal:
        back = jnp.maximum(-distances, 0)
    else:
        buckets //= 2
        first, back = jnp.where(distances > 0, buckets, 0), jnp.abs(distances)
    exact = buckets // 2
    ratio = jnp.log(jnp.maximum(back, 1).astype(jnp.float32) / exact) / math.log(max_distance / exact)
    far = exact + (ratio * (buckets - exact)).astype(jnp.int32)
    return first + jnp.where(back < exact, back, jnp.minimum(far, buckets - 1))
