"""Attention in blocks of queries, which never holds a (T, T) matrix for the backward pass.

A block of queries is multiplied with the keys that some query of it sees only, so that most products above the diagonal
(or outside a window) are never formed. Of the softmax, only each query's log-sum-exp is kept; the backward pass forms
the shares again from it (Dao et al. 2022, arXiv:2205.14135, without its tiles over keys).
"""

from __future__ import annotations

import functools
import math
from collections.abc import Iterator
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array
from jax.ad_checkpoint import checkpoint_name
from jaxtyping import Bool, Float, Int

from lmlab.nn.layout import known, product_by_head
from lmlab.nn.stack import KEPT

MASKED = -1e30
"""Stands for minus infinity; finite, for a query that sees nothing (padding) must not make NaN."""
_BLOCK = 128  # queries; below, smaller products cost XLA:CPU more than what they skip
_MOST_BLOCKS = 8  # each is written out in the program

_Saved = tuple[Array, Array, Array, Array | None, Array, Array]


class Sight(NamedTuple):
    """Which tokens of its own segment a token sees, by their distance.

    Attributes:
      causal: none of those behind it.
      window: only those nearer than so many places: itself, `window - 1` before, and as many behind where these are
        seen at all (Beltagy et al. 2020, arXiv:2004.05150; Jiang et al. 2023, arXiv:2310.06825); None: all.
    """

    causal: bool = True
    window: int | None = None

    def reach(self, start: int, end: int, time: int) -> tuple[int, int]:
        """The range of keys, out of `time`, that queries from `start` to `end` see some of."""
        low = 0 if self.window is None else max(0, start - self.window + 1)
        if self.causal:
            return low, end
        return low, time if self.window is None else min(time, end + self.window - 1)

    def mask(
        self, queries: Int[Array, "*B t 1"], keys: Int[Array, "*B 1 s"] | Int[Array, " s"]
    ) -> Bool[Array, "*B t s"] | None:
        """Which keys' places the queries' places see; None where that is all."""
        visible = keys <= queries if self.causal else None
        if self.window is not None:
            near = keys > queries - self.window
            visible = near if visible is None else visible & near
            visible = visible if self.causal else visible & (keys < queries + self.window)
        return visible


CAUSAL = Sight()


@functools.partial(jax.custom_vjp, nondiff_argnums=(4,))
def blockwise_attention(
    q: Float[Array, "B H T K"],
    k: Float[Array, "B G T K"],
    v: Float[Array, "B G T K"],
    segment_ids: Int[Array, "B T"] | None,
    sight: Sight = CAUSAL,
) -> Float[Array, "B H T K"]:
    """softmax(q k / sqrt(K)) v over what each token sees of its own segment.

    Args:
      q, k, v: products are formed in their dtype; the softmax and all sums are float32. G divides H: each head of keys
        and values serves H / G heads of queries that stand side by side.
      segment_ids: the document of each token; None where each row is one.
      sight: what a token sees.
    """
    return _forward(q, k, v, segment_ids, sight)[0]


def visible_tokens(
    sight: Sight, time: int, segment_ids: Int[Array, "B T"] | None = None, queries: tuple[int, int] | None = None
) -> Bool[Array, "B 1 t s"] | None:
    """What tokens see of those within their reach; the leading axis is 1 where it is the same in all rows.

    Args:
      sight: what a token sees.
      time: tokens in a row.
      segment_ids: the document of each token.
      queries: the range of tokens that see; None is all of them.

    Returns:
      A mask, t = the queries, s = the keys in their reach; None where all is seen.
    """
    start, end = queries or (0, time)
    low, high = sight.reach(start, end, time)
    visible = sight.mask(jnp.arange(start, end)[:, None], jnp.arange(low, high))
    if segment_ids is None:
        return None if visible is None else visible[None, None]
    same = segment_ids[:, None, start:end, None] == segment_ids[:, None, None, low:high]
    return same if visible is None else visible & same


def fold_groups(x: Float[Array, "B H T K"], like: Float[Array, "B G S K"]) -> Float[Array, "B G T*H/G K"]:
    """Heads that share one head of keys and values, one behind the other in the axis of tokens."""
    rows, heads, time, width = x.shape
    return x if heads == like.shape[1] else x.reshape(rows, like.shape[1], heads // like.shape[1] * time, width)


def _forward(q: Array, k: Array, v: Array, segment_ids: Array | None, sight: Sight) -> tuple[Array, _Saved]:
    outputs, normalisers = [], []
    time, copies = q.shape[2], q.shape[1] // k.shape[1]
    for start, end in _blocks(time):
        low, high = sight.reach(start, end, time)
        queries = fold_groups(q[:, :, start:end], k)
        scores = product_by_head("tk,sk->ts", queries, k[:, :, low:high]) / math.sqrt(q.shape[3])
        scores = _masked(scores, visible_tokens(sight, time, segment_ids, (start, end)), copies)
        top = scores.max(-1, keepdims=True)
        shares = jnp.exp(scores - top)
        total = shares.sum(-1, keepdims=True)
        output = product_by_head("ts,sk->tk", shares.astype(v.dtype), v[:, :, low:high]) / total
        outputs.append(_unfold(output, end - start))
        normalisers.append(_unfold(top + jnp.log(total), end - start)[..., 0])
    output = checkpoint_name(jnp.concatenate(outputs, 2).astype(q.dtype), KEPT)
    log_total = checkpoint_name(jnp.concatenate(normalisers, 2), KEPT)
    return output, (q, k, v, segment_ids, output, log_total)


def _backward(sight: Sight, saved: _Saved, d_output: Array) -> tuple[Array, Array, Array, None]:
    q, k, v, segment_ids, output, log_total = saved
    time, copies, scale = q.shape[2], q.shape[1] // k.shape[1], 1 / math.sqrt(q.shape[3])
    # A score's gradient is its share times (the share's gradient less this mean of them).
    mean = (d_output.astype(jnp.float32) * output.astype(jnp.float32)).sum(-1)
    d_q, d_k, d_v = [], jnp.zeros(k.shape), jnp.zeros(v.shape)
    for start, end in _blocks(time):
        low, high = sight.reach(start, end, time)
        queries, d_out = (fold_groups(x[:, :, start:end], k) for x in (q, d_output))
        normaliser, middle = (_as_columns(x[:, :, start:end], k) for x in (log_total, mean))
        # Keys stand before queries here, so that only one of the three sums below runs over a first axis.
        scores = product_by_head("sk,tk->st", k[:, :, low:high], queries) * scale
        visible = visible_tokens(sight, time, segment_ids, (start, end))
        shares = _seen(jnp.exp(scores - normaliser), visible, copies)
        d_shares = product_by_head("sk,tk->st", v[:, :, low:high], d_out)
        d_scores = (shares * (d_shares - middle) * scale).astype(q.dtype)
        beyond = ((0, 0), (0, 0), (low, time - high), (0, 0))
        d_v += jnp.pad(product_by_head("st,tk->sk", shares.astype(v.dtype), d_out), beyond)
        d_k += jnp.pad(product_by_head("st,tk->sk", d_scores, queries), beyond)
        d_q.append(_unfold(product_by_head("st,sk->tk", d_scores, k[:, :, low:high]), end - start))
    return jnp.concatenate(d_q, 2).astype(q.dtype), d_k.astype(k.dtype), d_v.astype(v.dtype), None


blockwise_attention.defvjp(_forward, _backward)


def _masked(scores: Float[Array, "B G t s"], visible: Bool[Array, "B 1 t s"] | None, copies: int) -> Array:
    """Scores of what is not seen made as good as minus infinity; the queries stand there `copies` times."""
    if visible is None:
        return scores
    return jnp.where(visible if copies == 1 else jnp.tile(visible, (1, 1, copies, 1)), scores, MASKED)


def _seen(shares: Float[Array, "B G s t"], visible: Bool[Array, "B 1 t s"] | None, copies: int) -> Array:
    """Shares of what is not seen made zero; a query that sees nothing would have others here."""
    if visible is None:
        return shares
    visible = visible.swapaxes(2, 3)
    return jnp.where(visible if copies == 1 else jnp.tile(visible, (1, 1, 1, copies)), shares, 0)


def _unfold(x: Float[Array, "B G t*C n"], time: int) -> Float[Array, "B H t n"]:
    return x if x.shape[2] == time else x.reshape(x.shape[0], -1, time, x.shape[3])


def _as_columns(x: Float[Array, "B H t"], like: Float[Array, "B G S K"]) -> Float[Array, "B G 1 t*H/G"]:
    return x[:, :, None] if x.shape[1] == like.shape[1] else x.reshape(x.shape[0], like.shape[1], 1, -1)


def _blocks(time: int) -> Iterator[tuple[int, int]]:
    """Where each block of queries starts and ends; one of all where their number is not known."""
    if not known(time):
        yield 0, time
        return
    size = max(_BLOCK, -(-time // _MOST_BLOCKS))
    for start in range(0, time, size):
        yield start, min(start + size, time)
