"""Attention without a softmax, y_t = Σ_{s ≤ t} γ^(t-s) (q_t · k_s) v_s, in chunks of time.

The sum is also a recurrence, S_t = γ S_{t-1} + k_t v_tᵀ and y_t = q_tᵀ S_t (Katharopoulos et al. 2020,
arXiv:2006.16236, section 3.4; Sun et al. 2023, arXiv:2307.08621, section 2.1). Inside a chunk it is computed as
attention is, between chunks by the recurrence (the latter's "chunkwise" form), so that time and memory grow linearly
with T.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Float, Int

from lmlab.nn.layout import known, product_by_head
from lmlab.nn.reading import Reading


def linear_attention(
    q: Float[Array, "B H T K"],
    k: Float[Array, "B H T K"],
    v: Float[Array, "B H T V"],
    state: Float[Array, "B H K V"],
    reading: Reading,
    *,
    log_decay: Float[Array, " H"],
    chunk: int,
) -> tuple[Float[Array, "B H T V"], Float[Array, "B H K V"]]:
    """The outputs of all tokens and the last state, float32.

    Args:
      q, k, v: products inside a chunk are formed in their dtype; all sums are float32.
      state: before the first token, float32; without a cache, zero.
      reading: tokens see their own document only; what is not there leaves the state as it is.
      log_decay: log γ of each head, at most 0.
      chunk: tokens that are computed in parallel.
    """
    batch, _, time, _ = q.shape
    chunk = min(chunk, time) if known(time) else chunk
    segments = jnp.zeros((batch, time), jnp.int32) if reading.segment_ids is None else reading.segment_ids
    steps = reading.masked(jnp.ones((batch, time)))
    k = k * steps[:, None, :, None].astype(k.dtype)

    def body(carry: tuple[Array, Array], piece: tuple[Array, ...]) -> tuple[tuple[Array, Array], Array]:
        return _chunk(*carry, log_decay[:, None], *piece)

    # What fills up the last chunk is not there: no key, no step.
    pieces = tuple(_chunks(x, chunk, axis) for x, axis in ((q, 2), (k, 2), (v, 2), (steps, 1), (segments, 1)))
    carry = (state, segments[:, 0])
    (state, _), y = jax.lax.scan(jax.checkpoint(body, prevent_cse=False), carry, pieces)
    return jnp.moveaxis(y, 0, 2).reshape(*q.shape[:2], -1, v.shape[3])[:, :, :time], state


def _chunk(
    state: Float[Array, "B H K V"],
    document: Int[Array, " B"],
    log_decay: Float[Array, "H 1"],
    q: Float[Array, "B H c K"],
    k: Float[Array, "B H c K"],
    v: Float[Array, "B H c V"],
    steps: Float[Array, "B c"],
    segments: Int[Array, "B c"],
) -> tuple[tuple[Array, Array], Array]:
    """One chunk: the state after it and whose document that is, and its outputs."""
    size = q.shape[2]
    age = steps.cumsum(1)[:, None]  # steps from the state before the chunk to each token
    visible = (segments[:, None, :, None] == segments[:, None, None, :]) & jnp.tri(size, dtype=bool)
    between = jnp.where(visible, age[..., :, None] - age[..., None, :], 0)
    shares = jnp.where(visible, product_by_head("tk,sk->ts", q, k) * jnp.exp(log_decay[..., None] * between), 0)
    y = product_by_head("ts,sv->tv", shares.astype(v.dtype), v)

    goes_on = (segments == document[:, None])[:, None]
    earlier = jnp.where(goes_on, jnp.exp(log_decay * age), 0)
    y = y + product_by_head("tk,kv->tv", q.astype(jnp.float32), state) * earlier[..., None]

    last = segments[:, -1]
    later = jnp.where((segments == last[:, None])[:, None], jnp.exp(log_decay * (age[..., -1:] - age)), 0)
    added = product_by_head("sk,sv->kv", k.astype(jnp.float32) * later[..., None], v.astype(jnp.float32))
    return (state * earlier[..., -1:, None] + added, last), y


def _chunks(x: Array, chunk: int, axis: int) -> Array:
    """Time cut into pieces, padded with zeros; the axis of the pieces comes first."""
    count = -(-x.shape[axis] // chunk)
    x = jnp.pad(x, [(0, count * chunk - x.shape[axis] if at == axis else 0) for at in range(x.ndim)])
    return jnp.moveaxis(x.reshape(*x.shape[:axis], count, chunk, *x.shape[axis + 1 :]), axis, 0)
