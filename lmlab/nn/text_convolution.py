"""Convolutional features of whole texts (Kim 2014), and the highway layer that is put behind them."""

from __future__ import annotations

from collections.abc import Sequence

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array
from jaxtyping import Bool, Float

from lmlab.nn.linear import Initializer, Linear


class TextConvolution(nnx.Module):
    """Filters of several widths over the vectors of a text, relu, and each filter's maximum over all of its places.

    (Kim 2014, arXiv:1408.5882, section 2.) A filter of width w looks at the places that hold w vectors of the text; a
    text of fewer than w is padded with zeros to that many, as there.

    Args:
      inputs: width of the vectors, E.
      widths: of the filters, in tokens.
      filters: how many of each width; F is their sum.
      init: of the kernels (w·E, filters).
      bias: what the biases start at.
    """

    def __init__(
        self,
        inputs: int,
        widths: Sequence[int],
        filters: Sequence[int],
        init: Initializer,
        *,
        bias: float = 0.0,
        rngs: nnx.Rngs,
    ) -> None:
        self.widths = tuple(widths)
        self.convolutions = nnx.List(
            [Linear(width * inputs, count, init, rngs=rngs) for width, count in zip(widths, filters, strict=True)]
        )
        for convolution, count in zip(self.convolutions, filters, strict=True):
            convolution.bias = nnx.Param(jnp.full(count, bias), role="bias")

    def __call__(self, x: Float[Array, "B T E"], there: Bool[Array, "B T"]) -> Float[Array, "B F"]:
        """The features of each row, side by side in the order of the widths, in the dtype of x.

        Args:
          x: vectors.
          there: False where there is none; a text reaches to the last place where there is one.
        """
        x = jnp.where(there[..., None], x, 0)
        length = jnp.max(jnp.where(there, jnp.arange(1, x.shape[1] + 1), 0), 1)
        found = zip(self.widths, self.convolutions, strict=True)
        return jnp.concatenate([_maxima(x, length, width, convolution) for width, convolution in found], -1)


def _maxima(x: Array, length: Array, width: int, convolution: Linear) -> Float[Array, "B F"]:
    """The maximum of each filter of one width over a text's places."""
    batch, time, _ = x.shape
    x = jnp.pad(x, ((0, 0), (0, max(width - time, 0)), (0, 0)))
    places = x.shape[1] - width + 1
    windows = jnp.concatenate([x[:, shift : shift + places] for shift in range(width)], -1)
    y = jax.nn.relu(convolution(windows.reshape(batch * places, -1))).reshape(batch, places, -1)
    inside = jnp.arange(places) < jnp.maximum(length - width + 1, 1)[:, None]
    return jnp.where(inside[..., None], y, 0).max(1)  # relu is never below the 0 of what lies outside


class Highway(nnx.Module):
    """t · relu(x W + b) + (1 - t) · x with the gate t = sigmoid(x U + c) (Srivastava et al. 2015, arXiv:1505.00387).

    Args:
      width: D.
      init: of both kernels.
      gate_bias: what c starts at; below 0 it lets x through at first.
    """

    def __init__(self, width: int, init: Initializer, *, gate_bias: float = 0.0, rngs: nnx.Rngs) -> None:
        self.transform = Linear(width, width, init, rngs=rngs)
        self.gate = Linear(width, width, init, rngs=rngs)
        self.gate.bias = nnx.Param(jnp.full(width, gate_bias), role="bias")

    def __call__(self, x: Float[Array, "*N D"]) -> Float[Array, "*N D"]:
        """Each vector on its own, in its dtype."""
        gate = jax.nn.sigmoid(self.gate(x))
        return gate * jax.nn.relu(self.transform(x)) + (1 - gate) * x
