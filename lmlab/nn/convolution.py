"""Short causal convolutions over time, with the last inputs as an explicit cache.

A convolution of a few taps is a few shifted products. What a shift brings from another document of the row is zero, so
that documents packed into a row are convolved as each would be alone.
"""

from __future__ import annotations

import math

import jax.numpy as jnp
from flax import nnx
from jax import Array
from jaxtyping import Float

from lmlab.nn.linear import uniform
from lmlab.nn.reading import Reading

Window = Array
"""The last S inputs that each row has read, (B, S, D), oldest first; zero where it has read fewer."""


def lags(
    x: Float[Array, "B T D"], taps: int, reading: Reading, window: Window | None = None, dilation: int = 1
) -> list[Float[Array, "B T D"]]:
    """What stood (taps-1)·dilation, ..., dilation and 0 tokens before each one; zero where that is another document.

    Args:
      x: inputs.
      taps: number of arrays returned, the oldest first.
      reading: says which tokens belong together.
      window: what was read before, S = (taps-1)·dilation inputs; zeros without.
      dilation: tokens from one tap to the next.
    """
    batch, time, width = x.shape
    reach = (taps - 1) * dilation
    whole = jnp.concatenate((jnp.zeros((batch, reach, width), x.dtype) if window is None else window, x), 1)
    return [_own(whole[:, reach - lag : reach - lag + time], lag, reading) for lag in range(reach, -1, -dilation)]


def _own(x: Float[Array, "B T D"], lag: int, reading: Reading) -> Float[Array, "B T D"]:
    """`x`, which stood `lag` tokens before, where it belongs to the same document."""
    segments = reading.segment_ids
    if segments is None or lag == 0:
        return x
    before = jnp.pad(segments, ((0, 0), (lag, 0)), constant_values=-1)[:, : segments.shape[1]]
    return jnp.where((segments == before)[..., None], x, 0)


def advanced(window: Window, x: Float[Array, "B T D"], reading: Reading) -> Window:
    """The window after `x` is read too."""
    whole = jnp.concatenate((window, x), 1)
    if reading.reads is None:
        return whole[:, x.shape[1] :]
    places = reading.reads.sum(1)[:, None] + jnp.arange(window.shape[1])
    return jnp.take_along_axis(whole, places[..., None], 1)


class DepthwiseConv(nnx.Module):
    """A causal convolution of each channel on its own, in the dtype of its input.

    The kernel is (taps, D), the oldest tap first, and starts uniform in ±1/sqrt(taps), as a bias does in PyTorch; here
    a bias starts at zero.

    Args:
      width: D.
      taps: inputs that an output depends on, its own included.
      bias: False leaves it out.
    """

    def __init__(self, width: int, taps: int, *, bias: bool = True, rngs: nnx.Rngs) -> None:
        self.taps = taps
        self.kernel = nnx.Param(uniform(1 / math.sqrt(taps))(rngs.params(), (taps, width)), role="kernel")
        self.bias = nnx.Param(jnp.zeros(width), role="bias") if bias else None

    def __call__(
        self, x: Float[Array, "B T D"], reading: Reading, window: Window | None = None
    ) -> tuple[Float[Array, "B T D"], Window | None]:
        """The convolution, and the window (taps-1 inputs) after it if one was given."""
        shifted = lags(x, self.taps, reading, window)
        kernel = self.kernel[...].astype(x.dtype)
        y = sum((part * kernel[tap] for tap, part in enumerate(shifted[1:], 1)), shifted[0] * kernel[0])
        if self.bias is not None:
            y = y + self.bias[...].astype(x.dtype)
        return y, None if window is None else advanced(window, x, reading)
