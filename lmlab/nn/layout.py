"""What the compiler is told about where activations lie, in a program for many devices."""

from __future__ import annotations

from typing import Any

import jax
from jax import Array
from jax.sharding import PartitionSpec

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
