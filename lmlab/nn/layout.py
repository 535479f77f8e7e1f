"""Where activations lie: over the devices, and in memory where a compiler needs help."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from jax import Array
from jax.sharding import PartitionSpec
from jaxtyping import Float

ROWS = ("data", "fsdp")
"""The mesh axes that the rows of a batch lie over."""


def by_rows(x: Array, axis: int = 0) -> Array:
    """`x`, kept split over devices by its rows; itself where the program is not traced for a mesh.

    Without this, the compiler follows the parameters: where these are split over devices (fsdp), it would rather
    split the width of the activations and compute every row everywhere. One mention in each layer is enough.

    Args:
      x: activations.
      axis: which axis holds the rows, or the rows times something after them, as in (B·T, D).
    """
    mesh = jax.sharding.get_abstract_mesh()
    if mesh.empty or not set(ROWS) <= set(mesh.axis_names):
        return x
    spec: list[Any] = [PartitionSpec.UNCONSTRAINED] * x.ndim
    spec[axis] = ROWS
    return jax.lax.with_sharding_constraint(x, PartitionSpec(*spec))


def known(size: Any) -> bool:
    """Whether a size is a number: in a program that is traced for export it may be a symbol, which has no value yet.

    A choice between two forms of the same product must be made without its value then: comparing a symbol is an error.
    """
    return isinstance(size, int)


def on_cpu() -> bool:
    """Whether the program is for XLA's CPU compiler, which a few layouts suit far better than others."""
    return jax.default_backend() == "cpu"


def product_by_head(equation: str, a: Float[Array, "B H *M"], b: Float[Array, "B H *N"]) -> Float[Array, "B H t s"]:
    """The einsum of two axes each, `equation` as in "tk,sk->ts", for every row and head; summed in float32.

    XLA's CPU compiler transposes the operands of a product with two batch axes first: there, rows and heads become one
    axis. Elsewhere they stay apart, so that each can be split over its own axis of the devices.
    """
    first, second, result = (f"...{axes}" for axes in equation.replace("->", ",").split(","))
    lead = a.shape[:2]
    if on_cpu():
        a, b = (x.reshape(-1, *x.shape[2:]) for x in (a, b))
    y = jnp.einsum(f"{first},{second}->{result}", a, b, preferred_element_type=jnp.float32)
    return y.reshape(*lead, *y.shape[-2:])
