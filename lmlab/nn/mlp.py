"""The feed-forward half of a transformer block."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import jax
from flax import nnx
from jax import Array
from jaxtyping import Float

from lmlab.nn.linear import Initializer, Linear

Activation = Literal["gelu", "gelu_exact", "relu", "relu_squared", "silu", "swiglu", "geglu", "reglu"]

ACTIVATIONS: dict[str, Callable[[Array], Array]] = {
    "gelu": jax.nn.gelu,  # the tanh approximation, as in GPT-2
    "gelu_exact": lambda x: jax.nn.gelu(x, approximate=False),  # by the error function, as in BERT
    "relu": jax.nn.relu,
    "relu_squared": lambda x: jax.nn.relu(x) ** 2,  # Primer, arXiv:2109.08668
    "silu": jax.nn.silu,
}
GATES: dict[str, str] = {"swiglu": "silu", "geglu": "gelu", "reglu": "relu"}
"""Gated activations (Shazeer 2020, arXiv:2002.05202) and the function of their gate."""


class MLP(nnx.Module):
    """down(activation(up(x))), or down(activation(gate(x)) * up(x)) where the activation is one of `GATES`.

    Args:
      width: D.
      inner: width between the products.
      activation: one of `ACTIVATIONS` or `GATES`.
      init: of the kernels of `up` and `gate`.
      init_out: of the kernel of `down`, which writes into the residual stream.
      bias: False leaves all biases out.
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
        self.activation = GATES.get(activation, activation)
        self.up = Linear(width, inner, init, bias=bias, rngs=rngs)
        self.gate = Linear(width, inner, init, bias=bias, rngs=rngs) if activation in GATES else None
        self.down = Linear(inner, width, init_out, bias=bias, rngs=rngs)

    def __call__(self, x: Float[Array, "*N D"]) -> Float[Array, "*N D"]:
        """Each vector on its own."""
        activation = ACTIVATIONS[self.activation]
        if self.gate is None:
            return self.down(activation(self.up(x)))
        return self.down(activation(self.gate(x)) * self.up(x))
