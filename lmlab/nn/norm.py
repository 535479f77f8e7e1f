"""Normalisations over the width, computed in float32 whatever the compute dtype."""

from __future__ import annotations

from typing import Literal

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array
from jaxtyping import Float

from lmlab.nn.numbers import Number

Norm = Literal["layer", "rms"]


class LayerNorm(nnx.Module):
    """(x - mean) / sqrt(variance + epsilon) * scale + bias (Ba et al. 2016, arXiv:1607.06450).

    Args:
      width: D.
      bias: False leaves the bias out.
      epsilon: added to the variance; 1e-5 in GPT-2, 1e-12 in BERT.
    """

    def __init__(self, width: int, *, bias: bool = True, epsilon: float | Array = 1e-5) -> None:
        self.scale = nnx.Param(jnp.ones(width), role="scale")
        self.bias = nnx.Param(jnp.zeros(width), role="bias") if bias else None
        self.epsilon = Number(epsilon)

    def __call__(self, x: Float[Array, "*N D"]) -> Float[Array, "*N D"]:
        """Each vector normalised, in the dtype of x."""
        wide = x.astype(jnp.float32)
        centred = wide - wide.mean(-1, keepdims=True)
        variance = (centred * centred).mean(-1, keepdims=True)
        y = centred * jax.lax.rsqrt(variance + self.epsilon.value) * self.scale[...]
        return (y if self.bias is None else y + self.bias[...]).astype(x.dtype)


class RMSNorm(nnx.Module):
    """x / sqrt(mean(x²) + epsilon) * scale (Zhang & Sennrich 2019, arXiv:1910.07467).

    Args:
      width: D.
      epsilon: added to the mean square; 1e-6 in T5 and Llama.
    """

    def __init__(self, width: int, *, epsilon: float | Array = 1e-6) -> None:
        self.scale = nnx.Param(jnp.ones(width), role="scale")
        self.epsilon = Number(epsilon)

    def __call__(self, x: Float[Array, "*N D"]) -> Float[Array, "*N D"]:
        """Each vector normalised, in the dtype of x."""
        wide = x.astype(jnp.float32)
        mean_square = (wide * wide).mean(-1, keepdims=True)
        return (wide * jax.lax.rsqrt(mean_square + self.epsilon.value) * self.scale[...]).astype(x.dtype)


def make_norm(
    norm: Norm, width: int, *, bias: bool = True, epsilon: float | Array | None = None
) -> LayerNorm | RMSNorm:
    """A normalisation by name; an `epsilon` of None is the one that the class has."""
    given = {} if epsilon is None else {"epsilon": epsilon}
    return LayerNorm(width, bias=bias, **given) if norm == "layer" else RMSNorm(width, **given)
