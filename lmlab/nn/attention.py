"""Multi-head attention (Vaswani et al. 2017, arXiv:1706.03762): of a row to itself, with a cache, or to a source."""

from __future__ import annotations

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array
from jax.ad_checkpoint import checkpoint_name
from jaxtyping import Bool, Float, Int, Key

from lmlab.nn.blockwise import CAUSAL, MASKED, Sight, blockwise_attention, fold_groups, visible_tokens
from lmlab.nn.dropout import Dropout, Rate
from lmlab.nn.layout import known, on_cpu, product_by_head
from lmlab.nn.linear import Columns, Initializer, Linear
from lmlab.nn.norm import RMSNorm
from lmlab.nn.positions import Rotation, rotate
from lmlab.nn.stack import KEPT


class KVCache(NamedTuple):
    """Keys and values read so far. Slots at and beyond a row's length hold nothing that is ever seen.

    Attributes:
      k, v: (L, B, G, S, K), S slots, G heads of keys and values; inside one layer (B, G, S, K), as products read them.
      length: tokens that each row has read.
    """

    k: Float[Array, "L B G S K"]
    v: Float[Array, "L B G S K"]
    length: Int[Array, " B"]


class View(NamedTuple):
    """What the layers of a stack are told of their tokens, the same in all of them.

    Attributes:
      segment_ids: the document of each token, which sees no other; not looked at with a cache.
      rotation: turns queries and keys.
      bias: added to the scores; leading axis B or 1.
      prefix: tokens that all tokens of their segment see, those before them, too. With a cache, they are seen by the
        tokens that are read together with them or later.
    """

    segment_ids: Int[Array, "B T"] | None = None
    rotation: Rotation | None = None
    bias: Float[Array, "B H T S"] | None = None
    prefix: Bool[Array, "B T"] | None = None


class Attention(nnx.Module):
    """Self-attention over tokens that stand flattened, (B*T, D).

    The columns of `qkv` are ordered (H, 3, K): a device that holds some heads' columns holds all that these heads need.
    Where keys and values have fewer heads than queries, or queries their own initial values, the three are apart: `q`,
    `k` and `v`, whose columns are ordered by head.

    Args:
      width: D.
      heads: H.
      init: of the kernels of queries, keys and values.
      init_out: of the kernel of `out`, which writes into the residual stream.
      kv_heads: heads of keys and values, G, a divisor of H (Ainslie et al. 2023, arXiv:2305.13245); None is H.
      head_width: K; None is D / H.
      init_query: of the kernel of the queries, where it is another one.
      sight: what a token sees of its segment.
      scaled: divide scores by sqrt(K); T5 does not.
      query_factor: what queries are multiplied by, for scores of another size (`nn.mup`).
      qk_norm: normalise each query and key by its root mean square (Dehghani et al. 2023, arXiv:2302.05442, with an
        RMSNorm, as in Qwen3), before they are turned.
      dropout: probability of zeroing an attention weight.
      bias: False leaves all biases out.
    """

    def __init__(
        self,
        width: int,
        heads: int,
        init: Initializer,
        init_out: Initializer,
        *,
        kv_heads: int | None = None,
        head_width: int | None = None,
        init_query: Initializer | None = None,
        sight: Sight = CAUSAL,
        scaled: bool = True,
        query_factor: float = 1.0,
        qk_norm: bool = False,
        dropout: Rate = 0.0,
        bias: bool = True,
        rngs: nnx.Rngs,
    ) -> None:
        kv_heads, head_width = kv_heads or heads, head_width or width // heads
        self.heads, self.kv_heads, self.head_width, self.sight, self.scaled = heads, kv_heads, head_width, sight, scaled
        self.query_factor = query_factor
        self.dropout = Dropout(dropout)
        inner, narrow = heads * head_width, kv_heads * head_width
        together = kv_heads == heads and init_query is None
        columns = Columns(("q", "k", "v"), heads)
        self.qkv = Linear(width, 3 * inner, init, bias=bias, columns=columns, rngs=rngs) if together else None
        self.q = None if together else Linear(width, inner, init_query or init, bias=bias, rngs=rngs)
        self.k, self.v = (None if together else Linear(width, narrow, init, bias=bias, rngs=rngs) for _ in range(2))
        self.out = Linear(inner, width, init_out, bias=bias, rngs=rngs)
        self.q_norm, self.k_norm = (RMSNorm(head_width) if qk_norm else None for _ in range(2))

    def __call__(
        self,
        x: Float[Array, "B*T D"],
        batch: int,
        view: View,
        *,
        cache: KVCache | None = None,
        keys: Key[Array, " B"] | None = None,
        site: int | Array = 0,
    ) -> tuple[Float[Array, "B*T D"], tuple[Array, Array] | None]:
        """Each token's mixture of the values that it may see, and this layer's k and v if a cache was given.

        Args:
          x: tokens of `batch` rows, flattened.
          batch: B.
          view: what is known of the tokens.
          cache: this layer's; T tokens are written behind each row's length, and see all that the row has read.
          keys: one for each row, for dropout.
          site: number of the place that drops.
        """
        q, k, v = self._placed(x, batch, view)
        if cache is not None:
            kept = _append(cache.k, k, cache.length), _append(cache.v, v, cache.length)
            k, v = kept
            visible = _seen_in_cache(self.sight, cache.length, q.shape[2], k.shape[2], view.prefix)
            return self.out(_joined(self._mix(q, k, v, visible, view.bias, keys, site))), kept
        drops = keys is not None and not self.dropout.off
        if drops or view.bias is not None or view.prefix is not None or not self.scaled:
            visible = _seen(self.sight, q.shape[2], view)
            return self.out(_joined(self._mix(q, k, v, visible, view.bias, keys, site))), None
        q, k, v = (checkpoint_name(part, KEPT) for part in (q, k, v))
        return self.out(_joined(blockwise_attention(q, k, v, view.segment_ids, self.sight))), None

    def weights(self, x: Float[Array, "B*T D"], batch: int, view: View) -> Float[Array, "B H T T"]:
        """The share that each token has in each token's mixture, float32; without a cache."""
        q, k, _ = self._placed(x, batch, view)
        return shares(q, k, _seen(self.sight, q.shape[2], view), view.bias, self._scale)

    def _placed(self, x: Float[Array, "B*T D"], batch: int, view: View) -> tuple[Float[Array, "B H T K"], ...]:
        """Queries and keys, normalised and turned, and values."""
        q, k, v = self._heads(x, batch)
        if self.q_norm is not None and self.k_norm is not None:
            q, k = self.q_norm(q), self.k_norm(k)
        if view.rotation is not None:
            q, k = rotate(q, view.rotation), rotate(k, view.rotation)
        return (q if self.query_factor == 1.0 else q * self.query_factor), k, v

    @property
    def _scale(self) -> float | None:
        """What scores are divided by."""
        return math.sqrt(self.head_width) if self.scaled else None

    def _heads(self, x: Float[Array, "B*T D"], batch: int) -> tuple[Float[Array, "B H T K"], ...]:
        """Queries, keys and values: by one product, or by three where taking one apart again costs more."""
        if self.qkv is None:
            return tuple(_by_head(part(x), batch, self.head_width) for part in (self.q, self.k, self.v) if part)
        few = not known(x.shape[0]) or x.shape[0] < x.shape[-1]
        if not on_cpu() or few or not self.qkv.plain:  # of few tokens the outputs are less than the kernel
            split = self.qkv(x).reshape(batch, -1, self.heads, 3, self.head_width).transpose(3, 0, 2, 1, 4)
            return split[0], split[1], split[2]
        width, inner = x.shape[-1], self.heads * self.head_width
        kernel = self.qkv.kernel[...].astype(x.dtype).reshape(width, self.heads, 3, -1)
        parts = [x @ kernel[:, :, part].reshape(width, inner) for part in range(3)]
        if self.qkv.bias is not None:
            bias = self.qkv.bias[...].astype(x.dtype).reshape(self.heads, 3, -1)
            parts = [y + bias[:, part].reshape(inner) for part, y in enumerate(parts)]
        q, k, v = (_by_head(y, batch, self.head_width) for y in parts)
        return q, k, v

    def _mix(
        self,
        q: Float[Array, "B H T K"],
        k: Float[Array, "B G S K"],
        v: Float[Array, "B G S K"],
        visible: Bool[Array, "B 1 T S"] | None,
        bias: Float[Array, "B H T S"] | None,
        keys: Key[Array, " B"] | None,
        site: int | Array,
    ) -> Float[Array, "B H T K"]:
        return mixture(v, shares(q, k, visible, bias, self._scale), self.dropout, keys, site)


class CrossAttention(nnx.Module):
    """Attention to the tokens of another row, the source, of which keys and values are made once.

    Args: as of `Attention`.
    """

    def __init__(
        self,
        width: int,
        heads: int,
        init: Initializer,
        init_out: Initializer,
        *,
        kv_heads: int | None = None,
        head_width: int | None = None,
        init_query: Initializer | None = None,
        scaled: bool = True,
        dropout: Rate = 0.0,
        bias: bool = True,
        rngs: nnx.Rngs,
    ) -> None:
        self.head_width, self.scaled, self.dropout = head_width or width // heads, scaled, Dropout(dropout)
        narrow = (kv_heads or heads) * self.head_width
        self.q = Linear(width, heads * self.head_width, init_query or init, bias=bias, rngs=rngs)
        self.k = Linear(width, narrow, init, bias=bias, rngs=rngs)
        self.v = Linear(width, narrow, init, bias=bias, rngs=rngs)
        self.out = Linear(heads * self.head_width, width, init_out, bias=bias, rngs=rngs)

    def read(self, source: Float[Array, "B S D"]) -> tuple[Float[Array, "B S G K"], Float[Array, "B S G K"]]:
        """The keys and values of the source's states."""
        flat = source.reshape(-1, source.shape[-1])
        k, v = (part(flat).reshape(*source.shape[:2], -1, self.head_width) for part in (self.k, self.v))
        return k, v

    def __call__(
        self,
        x: Float[Array, "B*T D"],
        source: tuple[Float[Array, "B S G K"], Float[Array, "B S G K"]],
        there: Bool[Array, "B S"] | None,
        *,
        keys: Key[Array, " B"] | None = None,
        site: int | Array = 0,
    ) -> Float[Array, "B*T D"]:
        """Each token's mixture of the source's values.

        Args:
          x: tokens of B rows, flattened.
          source: from `read`.
          there: which tokens of the source are there; None is all.
          keys: one for each row, for dropout.
          site: number of the place that drops.
        """
        values = source[1].swapaxes(1, 2)
        return self.out(_joined(mixture(values, self.weights(x, source[0], there), self.dropout, keys, site)))

    def weights(
        self, x: Float[Array, "B*T D"], source: Float[Array, "B S G K"], there: Bool[Array, "B S"] | None
    ) -> Float[Array, "B H T S"]:
        """The share of each token of the source, of which these are the keys, in each token's mixture, float32."""
        k = source.swapaxes(1, 2)
        q = _by_head(self.q(x), k.shape[0], self.head_width)
        visible = None if there is None else there[:, None, None]
        return shares(q, k, visible, None, math.sqrt(self.head_width) if self.scaled else None)


def shares(
    q: Float[Array, "B H T K"],
    k: Float[Array, "B G S K"],
    visible: Bool[Array, "B 1 T S"] | None,
    bias: Float[Array, "B H T S"] | None,
    scale: float | None,
) -> Float[Array, "B H T S"]:
    """softmax(q k / scale + bias) over what is visible, float32."""
    scores = product_by_head("tk,sk->ts", fold_groups(q, k), k)
    scores = scores if scale is None else scores / scale
    scores = scores.reshape(*q.shape[:3], -1)
    scores = scores if bias is None else scores + bias
    return jax.nn.softmax(scores if visible is None else jnp.where(visible, scores, MASKED))


def mixture(
    v: Float[Array, "B G S K"],
    shares: Float[Array, "B H T S"],
    dropout: Dropout,
    keys: Key[Array, " B"] | None,
    site: int | Array,
) -> Float[Array, "B H T K"]:
    """Values mixed by their shares, with dropout of these."""
    kept = dropout(shares, keys, site).astype(v.dtype)
    return product_by_head("ts,sk->tk", fold_groups(kept, v), v).astype(v.dtype).reshape(*kept.shape[:3], -1)


def _seen(sight: Sight, time: int, view: View) -> Bool[Array, "B 1 T S"] | None:
    visible = visible_tokens(sight, time, view.segment_ids)
    if view.prefix is None or visible is None:
        return visible
    prefix = view.prefix[:, None, None, :]
    if view.segment_ids is not None:
        prefix = prefix & (view.segment_ids[:, None, :, None] == view.segment_ids[:, None, None, :])
    return visible | prefix


def _seen_in_cache(
    sight: Sight, length: Int[Array, " B"], time: int, slots: int, prefix: Bool[Array, "B T"] | None
) -> Bool[Array, "B 1 T S"] | None:
    """Each of `time` new tokens sees what its row has read and the new tokens up to itself, as far as it can see."""
    own = length[:, None] + jnp.arange(time)
    visible = sight.mask(own[:, None, :, None], jnp.arange(slots))
    if prefix is None or visible is None:
        return visible
    marks = jnp.zeros((own.shape[0], slots), bool).at[jnp.arange(own.shape[0])[:, None], own].set(prefix, mode="drop")
    return visible | marks[:, None, None]


def _append(
    slots: Float[Array, "B G S K"], new: Float[Array, "B G T K"], length: Int[Array, " B"]
) -> Float[Array, "B G S K"]:
    """Writes behind each row's own length; what does not fit is dropped."""
    rows, time = new.shape[0], new.shape[2]
    where = length[:, None] + jnp.arange(time)
    return slots.at[jnp.arange(rows)[:, None], :, where].set(new.swapaxes(1, 2).astype(slots.dtype), mode="drop")


def _by_head(x: Float[Array, "B*T HK"], batch: int, head_width: int) -> Float[Array, "B H T K"]:
    return x.reshape(batch, -1, x.shape[-1] // head_width, head_width).swapaxes(1, 2)


def _joined(heads: Float[Array, "B H T K"]) -> Float[Array, "B*T D"]:
    rows, count, time, width = heads.shape
    return heads.swapaxes(1, 2).reshape(rows * time, count * width)
