"""Causal convolutions as long as the text, by fast Fourier transforms, which never mix documents or look ahead.

One transform of the whole row would take O(T log T), but it spreads rounding errors, and documents, over all of time.
Here time is halved again and again: what the left half of a block adds to the right half is a convolution whose inputs
lie all before its outputs, and of whose documents only one spans the middle. That is one transform of T numbers for
each of log2(T / 8) sizes of blocks: O(T log² T), and exact for rows of packed documents.
"""

from __future__ import annotations

import jax.numpy as jnp
from jax import Array
from jaxtyping import Float, Int

_SMALLEST = 8  # tokens; inside blocks of this size the sum is written out


def long_convolution(
    x: Float[Array, "B T D"], filters: Float[Array, "T D"], segment_ids: Int[Array, "B T"] | None = None
) -> Float[Array, "B T D"]:
    """y_t = Σ_{s ≤ t} filters_{t-s} x_s over the s of t's own document, for each channel, in float32.

    Args:
      x: inputs.
      filters: by lag, for each channel; of as many lags as there are tokens.
      segment_ids: the document of each token; None where each row is one.
    """
    time, size = x.shape[1], _SMALLEST
    while size < time:
        size *= 2
    x = jnp.pad(x.astype(jnp.float32), ((0, 0), (0, size - time), (0, 0)))
    filters = jnp.pad(filters.astype(jnp.float32), ((0, size - time), (0, 0)))
    if segment_ids is not None:
        segment_ids = jnp.pad(segment_ids, ((0, 0), (0, size - time)))
    y, half = _inside(x, filters, segment_ids), _SMALLEST
    while half < size:
        y = y + _across(x, filters, segment_ids, half)
        half *= 2
    return y[:, :time]


def _inside(x: Array, filters: Array, segments: Array | None) -> Array:
    """The part of the sum in which both tokens lie in one of the smallest blocks."""
    blocks = x.reshape(-1, _SMALLEST, x.shape[2])
    y = blocks * filters[0]
    for lag in range(1, _SMALLEST):
        earlier = blocks[:, :-lag]
        if segments is not None:
            own = segments.reshape(-1, _SMALLEST)
            earlier = jnp.where((own[:, lag:] == own[:, :-lag])[..., None], earlier, 0)
        y = y + jnp.pad(earlier * filters[lag], ((0, 0), (lag, 0), (0, 0)))
    return y.reshape(x.shape)


def _across(x: Array, filters: Array, segments: Array | None, half: int) -> Array:
    """The part in which the earlier token lies in the left half, the later one in the right half of the same block."""
    blocks = x.reshape(x.shape[0], -1, 2, half, x.shape[2])
    left = blocks[:, :, 0]
    if segments is not None:
        halves = segments.reshape(x.shape[0], -1, 2, half)
        spans = halves == halves[:, :, 1:, :1]  # the document at the middle
        left = jnp.where(spans[:, :, 0, :, None], left, 0)
    # 2·half numbers are enough: what wraps around falls onto the left half, which is not looked at.
    product = jnp.fft.rfft(left, 2 * half, axis=2) * jnp.fft.rfft(filters[: 2 * half], axis=0)
    right = jnp.fft.irfft(product, 2 * half, axis=2)[:, :, half:]
    if segments is not None:
        right = jnp.where(spans[:, :, 1, :, None], right, 0)
    return jnp.stack((jnp.zeros_like(right), right), 2).reshape(x.shape)
