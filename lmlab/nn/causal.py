"""Causal attention in blocks of queries, which never holds a (T, T) matrix for the backward pass.

A block of queries is multiplied with the keys up to its own end only, so that most products above the diagonal are
never formed. Of the softmax, only each query's log-sum-exp is kept; the backward pass forms the shares again from it
(Dao et al. 2022, arXiv:2205.14135, without its tiles over keys).
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import jax
import jax.numpy as jnp
from jax import Array
from jax.ad_checkpoint import checkpoint_name
from jaxtyping import Bool, Float, Int

from lmlab.nn.layout import product_by_head
from lmlab.nn.stack import KEPT

MASKED = -1e30
"""Stands for minus infinity; finite, for a query that sees nothing (padding) must not make NaN."""
_BLOCK = 128  # queries; below, smaller products cost XLA:CPU more than what they skip
_MOST_BLOCKS = 8  # each is written out in the program

_Saved = tuple[Array, Array, Array, Array | None, Array, Array]


@jax.custom_vjp
def causal_attention(
    q: Float[Array, "B H T K"],
    k: Float[Array, "B H T K"],
    v: Float[Array, "B H T K"],
    segment_ids: Int[Array, "B T"] | None,
) -> Float[Array, "B H T K"]:
    """softmax(q k / sqrt(K)) v over what each token sees: itself and what is before it in its own segment.

    Args:
      q, k, v: products are formed in their dtype; the softmax and all sums are float32.
      segment_ids: the document of each token; None where each row is one.
    """
    return _forward(q, k, v, segment_ids)[0]


def causal_mask(start: int, end: int, segment_ids: Int[Array, "B T"] | None = None) -> Bool[Array, "B 1 t s"]:
    """What the tokens from `start` to `end` see of those before `end`; leading axis 1: the same in all rows."""
    visible = jnp.arange(end) <= jnp.arange(start, end)[:, None]
    if segment_ids is None:
        return visible[None, None]
    return visible & (segment_ids[:, None, start:end, None] == segment_ids[:, None, None, :end])


def _forward(q: Array, k: Array, v: Array, segment_ids: Array | None) -> tuple[Array, _Saved]:
    outputs, normalisers = [], []
    for start, end in _blocks(q.shape[2]):
        scores = product_by_head("tk,sk->ts", q[:, :, start:end], k[:, :, :end]) / math.sqrt(q.shape[3])
        scores = jnp.where(causal_mask(start, end, segment_ids), scores, MASKED)
        top = scores.max(-1, keepdims=True)
        shares = jnp.exp(scores - top)
        total = shares.sum(-1, keepdims=True)
        outputs.append(product_by_head("ts,sk->tk", shares.astype(v.dtype), v[:, :, :end]) / total)
        normalisers.append((top + jnp.log(total))[..., 0])
    output = checkpoint_name(jnp.concatenate(outputs, 2).astype(q.dtype), KEPT)
    log_total = checkpoint_name(jnp.concatenate(normalisers, 2), KEPT)
    return output, (q, k, v, segment_ids, output, log_total)


def _backward(saved: _Saved, d_output: Array) -> tuple[Array, Array, Array, None]:
    q, k, v, segment_ids, output, log_total = saved
    time, scale = q.shape[2], 1 / math.sqrt(q.shape[3])
    # A score's gradient is its share times (the share's gradient less this mean of them).
    mean = (d_output.astype(jnp.float32) * output.astype(jnp.float32)).sum(-1)
    d_q, d_k, d_v = [], jnp.zeros(k.shape), jnp.zeros(v.shape)
    for start, end in _blocks(time):
        queries, d_out = q[:, :, start:end], d_output[:, :, start:end]
        # Keys stand before queries here, so that only one of the three sums below runs over a first axis.
        scores = product_by_head("sk,tk->st", k[:, :, :end], queries) * scale
        visible = causal_mask(start, end, segment_ids).swapaxes(2, 3)
        shares = jnp.where(visible, jnp.exp(scores - log_total[:, :, None, start:end]), 0)
        d_shares = product_by_head("sk,tk->st", v[:, :, :end], d_out)
        d_scores = (shares * (d_shares - mean[:, :, None, start:end]) * scale).astype(q.dtype)
        beyond = ((0, 0), (0, 0), (0, time - end), (0, 0))
        d_v += jnp.pad(product_by_head("st,tk->sk", shares.astype(v.dtype), d_out), beyond)
        d_k += jnp.pad(product_by_head("st,tk->sk", d_scores, queries), beyond)
        d_q.append(product_by_head("st,sk->tk", d_scores, k[:, :, :end]))
    return jnp.concatenate(d_q, 2).astype(q.dtype), d_k.astype(k.dtype), d_v.astype(v.dtype), None


causal_attention.defvjp(_forward, _backward)


def _blocks(time: int) -> Iterator[tuple[int, int]]:
    """Where each block of queries starts and ends."""
    size = max(_BLOCK, -(-time // _MOST_BLOCKS))
    for start in range(0, time, size):
        yield start, min(start + size, time)
