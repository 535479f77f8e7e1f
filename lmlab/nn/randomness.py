"""Random keys that belong to the content of rows: for what an evaluation draws."""

from __future__ import annotations

import zlib

import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Int, Key


def content_keys(tokens: Int[Array, "B *N"]) -> Key[Array, " B"]:
    """One key per row, a function of the row's ids and their places alone.

    So the masks of an evaluation are the same each time, on every layout, and whichever rows are in the batch: a loss
    uses these where it is given no keys.
    """
    rows = tokens.reshape(tokens.shape[0], -1).astype(jnp.uint32)
    places = jnp.arange(1, rows.shape[1] + 1, dtype=jnp.uint32)
    # Multiplication by odd constants and a shift between: what a sum alone would not tell apart, this does.
    mixed = (rows + 1) * jnp.uint32(2654435761) + places * jnp.uint32(2246822519)
    mixed = (mixed ^ (mixed >> 15)) * jnp.uint32(3266489917)
    return jax.vmap(lambda number: jax.random.fold_in(jax.random.key(0), number))(mixed.sum(1, dtype=jnp.uint32))


def keys_for(keys: Key[Array, " B"], purpose: str) -> Key[Array, " B"]:
    """Other keys, one per row, for something that is drawn beside dropout, whose sites are small numbers."""
    return jax.vmap(jax.random.fold_in, (0, None))(keys, zlib.crc32(purpose.encode()))
