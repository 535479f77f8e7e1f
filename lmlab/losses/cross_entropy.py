"""What losses over a vocabulary or over classes share: entries at targets, and projections of a part at a time."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Bool, Float, Int

Sums = TypeVar("Sums")


def at_ids(logits: Float[Array, "N V"], ids: Int[Array, " N"]) -> Float[Array, " N"]:
    """Each row's entry at its id: a masked sum, which is fused and has no scatter in its gradient; 0 for no id (-1)."""
    chosen = jnp.arange(logits.shape[-1]) == ids[:, None]
    return jnp.where(chosen, logits, 0).sum(-1)


def is_argmax(logits: Float[Array, "N V"], at_id: Float[Array, " N"], ids: Int[Array, " N"]) -> Bool[Array, " N"]:
    """logits.argmax(-1) == ids, without a reduction over pairs, which XLA:CPU does not vectorise.

    Args:
      logits: of all ids.
      at_id: what `at_ids` gives.
      ids: none of them is -1.
    """
    bound = at_id[:, None]
    behind = jnp.arange(logits.shape[-1]) >= ids[:, None]  # of equal entries, argmax takes the first
    return ((logits < bound) | ((logits == bound) & behind)).all(-1)


def in_pieces(x: Array, size: int) -> Array:
    """(B, T, ...) as (ceil(T / size), B, size, ...), padded with zeros."""
    x = jnp.pad(x, [(0, 0), (0, -x.shape[1] % size)] + [(0, 0)] * (x.ndim - 2))
    return x.reshape(x.shape[0], -1, size, *x.shape[2:]).swapaxes(0, 1)


def sums_over_chosen(
    terms: Callable[..., Sums], chosen: Bool[Array, "B T"], *arrays: Array, size: int | None = None
) -> Sums:
    """Sums over the chosen positions alone, `size` of each row at a time, so that no others are ever projected.

    The chosen positions of a row move to its front. As many turns are taken as the row with the most of them needs, and
    again in the backward pass: however many there are, none is left out, and no more than (B, size, V) is held.

    Args:
      terms: `(there, *pieces) -> sums`, a tree of scalars, of pieces (B, size, ...) of `arrays`; `there` (B, size) is
        false where a row has no more chosen positions, which must add nothing.
      chosen: which positions.
      arrays: (B, T, ...) each.
      size: positions of each row in a turn; None is a fifth of the row: of positions that are chosen at 15 %, long
        rows have no more.
    """
    size = size or -(-chosen.shape[1] // 5)
    order = jnp.argsort(~chosen, axis=1, stable=True)

    def moved(x: Array) -> Array:
        return in_pieces(jnp.take_along_axis(x, order.reshape(order.shape + (1,) * (x.ndim - 2)), axis=1), size)

    pieces = tuple(moved(x) for x in (chosen, *arrays))
    shapes = jax.eval_shape(terms, *(x[0] for x in pieces))
    zeros: Sums = jax.tree.map(lambda shape: jnp.zeros(shape.shape, shape.dtype), shapes)

    def turn(sums: Sums, piece: tuple[Array, ...]) -> tuple[Sums, None]:
        more = jax.lax.cond(piece[0].any(), lambda: terms(*piece), lambda: zeros)
        return jax.tree.map(jnp.add, sums, more), None

    return jax.lax.scan(jax.checkpoint(turn, prevent_cse=False), zeros, pieces)[0]


def is_zero(number: Any) -> bool:
    """Whether a number is known to be zero before anything is traced."""
    return isinstance(number, int | float) and number == 0
