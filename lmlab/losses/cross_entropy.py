"""What losses over a vocabulary or over classes share: entries at targets, and projections of a part at a time."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Bool, Float, Int

from lmlab.contracts import LossOutput

Sums = TypeVar("Sums")

NEVER = -1e30
"""The score of what cannot be chosen: finite, so that differences of two such are."""


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


def sums_in_pieces(terms: Callable[..., Sums], size: int | None, *arrays: Array) -> Sums:
    """`terms(*arrays)`, sums over arrays (B, T, ...), of `size` positions of each row at a time.

    They are computed again in the backward pass, so that what is made of the positions in between, such as logits
    (B, T, V), is never held whole. None takes all at once.
    """
    if size is None:
        return terms(*arrays)

    def turn(sums: Sums, piece: tuple[Array, ...]) -> tuple[Sums, None]:
        return jax.tree.map(jnp.add, sums, terms(*piece)), None

    pieces = tuple(in_pieces(x, size) for x in arrays)
    shapes = jax.eval_shape(terms, *(x[0] for x in pieces))
    zeros: Sums = jax.tree.map(lambda shape: jnp.zeros(shape.shape, shape.dtype), shapes)
    return jax.lax.scan(jax.checkpoint(turn, prevent_cse=False), zeros, pieces)[0]


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


def class_sums(
    logits: Float[Array, "N C"],
    ids: Int[Array, " N"],
    weights: Float[Array, " N"],
    *,
    there: Bool[Array, "N C"] | None = None,
    label_smoothing: Any = 0.0,
) -> LossOutput:
    """Cross-entropy of classes in nats, with the metrics `nats` (without smoothing) and `accuracy`.

    A class that no training example has (-1) is never predicted, so that it counts as an error; there is no
    probability of it, so that it does not count in the loss.

    Args:
      logits: scores of the classes, float32.
      ids: the right ones.
      weights: how much each counts.
      there: which classes can be chosen; None: all.
      label_smoothing: share of each target given to all classes that can be chosen alike.
    """
    shares = jnp.ones(logits.shape) if there is None else there.astype(jnp.float32)
    logits = logits if there is None else jnp.where(there, logits, NEVER)
    log_z = jax.nn.logsumexp(logits, -1)
    nats = log_z - at_ids(logits, ids)
    total = nats
    if not is_zero(label_smoothing):
        mean = (logits * shares).sum(-1) / jnp.maximum(shares.sum(-1), 1)
        total = total + label_smoothing * (log_z - mean - nats)
    known = jnp.where(ids >= 0, weights, 0)
    weight = known.sum()
    right = jnp.where(logits.argmax(-1) == ids, weights, 0).sum()
    metrics = {"nats": (jnp.where(known > 0, nats * known, 0).sum(), weight), "accuracy": (right, weights.sum())}
    return LossOutput(jnp.where(known > 0, total * known, 0).sum(), weight, metrics)


def is_zero(number: Any) -> bool:
    """Whether a number is known to be zero before anything is traced."""
    return isinstance(number, int | float) and number == 0
