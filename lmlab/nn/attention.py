"""Causal self-attention (Vaswani et al. 2017, arXiv:1706.03762), with an explicit cache."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array
from jaxtyping import Bool, Float, Int, Key

from lmlab.nn.dropout import Dropout, Rate
from lmlab.nn.linear import Initializer, Linear
from lmlab.nn.positions import Rotation, rotate

_MASKED = -1e30  # finite: a query that sees nothing (padding) must not make NaN


class KVCache(NamedTuple):
    """Keys and values read so far. Slots at and beyond a row's length hold nothing that is ever seen.

    Attributes:
      k, v: (L, B, S, H, K), S slots; inside one layer (B, S, H, K).
      length: tokens that each row has read.
    """

    k: Float[Array, "L B S H K"]
    v: Float[Array, "L B S H K"]
    length: Int[Array, " B"]


class Attention(nnx.Module):
    """Multi-head self-attention over tokens that stand flattened, (B*T, D).

    The columns of `qkv` are ordered (H, 3, K): a device that holds some heads' columns holds all that these heads need.

    Args:
      width: D.
      heads: H; K = D / H.
      init: of the kernel of `qkv`.
      init_out: of the kernel of `out`, which writes into the residual stream.
      dropout: probability of zeroing an attention weight.
      bias: False leaves both biases out.
    """

    def __init__(
        self,
        width: int,
        heads: int,
        init: Initializer,
        init_out: Initializer,
        *,
        dropout: Rate = 0.0,
        bias: bool = True,
        rngs: nnx.Rngs,
    ) -> None:
        self.heads = heads
        self.dropout = Dropout(dropout)
        self.qkv = Linear(width, 3 * width, init, bias=bias, rngs=rngs)
        self.out = Linear(width, width, init_out, bias=bias, rngs=rngs)

    def __call__(
        self,
        x: Float[Array, "B*T D"],
        batch: int,
        mask: Bool[Array, "B T S"],
        *,
        rotation: Rotation | None = None,
        cache: KVCache | None = None,
        keys: Key[Array, " B"] | None = None,
        site: int | Array = 0,
    ) -> tuple[Float[Array, "B*T D"], tuple[Array, Array] | None]:
        """Each token's mixture of the values that it may see, and this layer's k and v if a cache was given.

        Args:
          x: tokens of `batch` rows, flattened.
          batch: B.
          mask: which slots each token sees (leading axis 1: the same in all rows); S is T without a cache.
          rotation: turns queries and keys.
          cache: this layer's; T tokens are written behind each row's length.
          keys: one for each row, for dropout.
          site: number of the place that drops.
        """
        q, k, v = self._heads(self.qkv(x), batch)
        if rotation is not None:
            q, k = rotate(q, rotation), rotate(k, rotation)
        kept = None
        if cache is not None:
            kept = _append(cache.k, k, cache.length), _append(cache.v, v, cache.length)
            k, v = (part.swapaxes(1, 2) for part in kept)
        mixed = _attend(q, k, v, mask, lambda shares: self.dropout(shares, keys, site))
        return self.out(mixed.swapaxes(1, 2).reshape(x.shape)), kept

    def _heads(self, qkv: Float[Array, "B*T 3D"], batch: int) -> Float[Array, "3 B H T K"]:
        split = qkv.reshape(batch, -1, self.heads, 3, qkv.shape[-1] // (3 * self.heads))
        return split.transpose(3, 0, 2, 1, 4)


def causal_mask(time: int, segment_ids: Int[Array, "B T"] | None = None) -> Bool[Array, "B T T"]:
    """Each token sees itself and what is before it, in its own segment only; (1, T, T) without segments."""
    before = jnp.tril(jnp.ones((1, time, time), bool))
    if segment_ids is None:
        return before
    return before & (segment_ids[:, :, None] == segment_ids[:, None, :])


def cache_mask(length: Int[Array, " B"], time: int, slots: int) -> Bool[Array, "B T S"]:
    """Each of `time` new tokens sees what its row has read and the new tokens up to itself."""
    own = length[:, None] + jnp.arange(time)
    return jnp.arange(slots) <= own[:, :, None]


def _append(
    slots: Float[Array, "B S H K"], new: Float[Array, "B H T K"], length: Int[Array, " B"]
) -> Float[Array, "B S H K"]:
    """Writes behind each row's own length; what does not fit is dropped."""
    rows, time = new.shape[0], new.shape[2]
    where = length[:, None] + jnp.arange(time)
    return slots.at[jnp.arange(rows)[:, None], where].set(new.swapaxes(1, 2).astype(slots.dtype), mode="drop")


def _attend(
    q: Float[Array, "B H T K"],
    k: Float[Array, "B H S K"],
    v: Float[Array, "B H S K"],
    mask: Bool[Array, "B T S"],
    drop: Callable[[Array], Array],
) -> Float[Array, "B H T K"]:
    """Values mixed by softmax(q k / sqrt(K)), the softmax in float32: the place where the layout is decided.

    XLA's CPU compiler transposes operands of a product with two batch axes first, so there rows and heads become one
    axis. Elsewhere they stay apart, which lets a compiler partition each over its own axis of the devices.
    """
    rows, heads, time, head_width = q.shape
    joined = jax.default_backend() == "cpu"
    if joined:
        q, k, v = (part.reshape(rows * heads, *part.shape[2:]) for part in (q, k, v))
    scores = jnp.einsum("...tk,...sk->...ts", q, k, preferred_element_type=jnp.float32) / math.sqrt(head_width)
    scores = jnp.where(mask[:, None], scores.reshape(rows, heads, time, -1), _MASKED)
    shares = drop(jax.nn.softmax(scores)).astype(v.dtype)
    if joined:
        shares = shares.reshape(rows * heads, time, -1)
    return jnp.einsum("...ts,...sk->...tk", shares, v).reshape(rows, heads, time, head_width)
