"""The feed-forward half of a transformer block."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import jax
from flax import nnx
from jax import Array
from jaxtyping import Float

from lmlab.nn.linear import Initializer, Linear

Activation = Literal["gelu", "relu", "relu_squared", "silu"]

ACTIVATIONS: dict[str, Callable[[Array], Array]] = {
    "gelu": jax.nn.gelu,  # the tanh approximation, as in GPT-2
    "relu": jax.nn.relu,
    "relu_squared": lambda x: jax.nn.relu(x) ** 2,  # Primer, arXiv:2109.08668
    "silu": jax.nn.silu,
}


class MLP(nnx.Module):
    """down(activation(up(x))).

    Args:
      width: D.
      inner: width between the two products.
      activation: one of `ACTIVATIONS`.
      init: of the kernel of `up`.
      init_out: of the kernel of `down`, which writes into the residual stream.
      bias: False leaves both biases out.
    """

    def __init__(
        self,
        width: int,
        inner: int,
        activation: Activation,
        init: Initializer,
        init_out: Initializer,
        *,
        bias: bool = True,
        rngs: nnx.Rngs,
    ) -> None:
        self.activation = activation
        self.up = Linear(width, inner, init, bias=bias, rngs=rngs)
        self.down = Linear(inner, width, init_out, bias=bias, rngs=rngs)

    def __call__(self, x: Float[Array, "*N D"]) -> Float[Array, "*N D"]:
        """Each vector on its own."""
        return self.down(ACTIVATIONS[self.activation](self.up(x)))
