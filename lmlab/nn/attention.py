"""Causal self-attention (Vaswani et al. 2017, arXiv:1706.03762), with an explicit cache."""

from __future__ import annotations

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array
from jax.ad_checkpoint import checkpoint_name
from jaxtyping import Bool, Float, Int, Key

from lmlab.nn.causal import MASKED, causal_attention, causal_mask
from lmlab.nn.dropout import Dropout, Rate
from lmlab.nn.layout import on_cpu, product_by_head
from lmlab.nn.linear import Initializer, Linear
from lmlab.nn.positions import Rotation, rotate
from lmlab.nn.stack import KEPT


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
        *,
        segment_ids: Int[Array, "B T"] | None = None,
        rotation: Rotation | None = None,
        cache: KVCache | None = None,
        keys: Key[Array, " B"] | None = None,
        site: int | Array = 0,
    ) -> tuple[Float[Array, "B*T D"], tuple[Array, Array] | None]:
        """Each token's mixture of the values that it may see, and this layer's k and v if a cache was given.

        Args:
          x: tokens of `batch` rows, flattened.
          batch: B.
          segment_ids: the document of each token, which sees no other; not looked at with a cache.
          rotation: turns queries and keys.
          cache: this layer's; T tokens are written behind each row's length, and see all that the row has read.
          keys: one for each row, for dropout.
          site: number of the place that drops.
        """
        q, k, v = self._heads(x, batch)
        if rotation is not None:
            q, k = rotate(q, rotation), rotate(k, rotation)
        if cache is not None:
            kept = _append(cache.k, k, cache.length), _append(cache.v, v, cache.length)
            k, v = (part.swapaxes(1, 2) for part in kept)
            mixed = self._mix(q, k, v, _cache_mask(cache.length, q.shape[2], k.shape[2]), keys, site)
            return self.out(_joined(mixed)), kept
        if keys is None or self.dropout.off:
            q, k, v = (checkpoint_name(part, KEPT) for part in (q, k, v))
            return self.out(_joined(causal_attention(q, k, v, segment_ids))), None
        return self.out(_joined(self._mix(q, k, v, causal_mask(0, q.shape[2], segment_ids), keys, site))), None

    def _heads(self, x: Float[Array, "B*T D"], batch: int) -> tuple[Float[Array, "B H T K"], ...]:
        """Queries, keys and values: by one product, or by three where taking one apart again costs more."""
        width = x.shape[-1]
        if not on_cpu():
            split = self.qkv(x).reshape(batch, -1, self.heads, 3, width // self.heads).transpose(3, 0, 2, 1, 4)
            return split[0], split[1], split[2]
        kernel = self.qkv.kernel[...].astype(x.dtype).reshape(width, self.heads, 3, -1)
        parts = [x @ kernel[:, :, part].reshape(width, width) for part in range(3)]
        if self.qkv.bias is not None:
            bias = self.qkv.bias[...].astype(x.dtype).reshape(self.heads, 3, -1)
            parts = [y + bias[:, part].reshape(width) for part, y in enumerate(parts)]
        q, k, v = (y.reshape(batch, -1, self.heads, width // self.heads).swapaxes(1, 2) for y in parts)
        return q, k, v

    def _mix(
        self,
        q: Float[Array, "B H T K"],
        k: Float[Array, "B H S K"],
        v: Float[Array, "B H S K"],
        visible: Bool[Array, "B 1 T S"],
        keys: Key[Array, " B"] | None,
        site: int | Array,
    ) -> Float[Array, "B H T K"]:
        """Values mixed by softmax(q k / sqrt(K)), with dropout of the shares."""
        scores = product_by_head("tk,sk->ts", q, k) / math.sqrt(q.shape[3])
        shares = self.dropout(jax.nn.softmax(jnp.where(visible, scores, MASKED)), keys, site)
        return product_by_head("ts,sk->tk", shares.astype(v.dtype), v).astype(v.dtype)


def _cache_mask(length: Int[Array, " B"], time: int, slots: int) -> Bool[Array, "B 1 T S"]:
    """Each of `time` new tokens sees what its row has read and the new tokens up to itself."""
    own = length[:, None] + jnp.arange(time)
    return jnp.arange(slots) <= own[:, None, :, None]


def _append(
    slots: Float[Array, "B S H K"], new: Float[Array, "B H T K"], length: Int[Array, " B"]
) -> Float[Array, "B S H K"]:
    """Writes behind each row's own length; what does not fit is dropped."""
    rows, time = new.shape[0], new.shape[2]
    where = length[:, None] + jnp.arange(time)
    return slots.at[jnp.arange(rows)[:, None], where].set(new.swapaxes(1, 2).astype(slots.dtype), mode="drop")


def _joined(heads: Float[Array, "B H T K"]) -> Float[Array, "B*T D"]:
    rows, count, time, width = heads.shape
    return heads.swapaxes(1, 2).reshape(rows * time, count * width)
