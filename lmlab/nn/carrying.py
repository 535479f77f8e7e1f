"""What a causal model has read, as a state of one size that is carried from window to window.

A cache has its rows wherever a model wants them. What is carried has them first, in every leaf, so that it can be laid
out over devices, and cut into microbatches, as the rows of a batch are.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Bool

from lmlab.errors import ConfigError
from lmlab.registry import name_of

if TYPE_CHECKING:
    from lmlab.capabilities import Cache, CausalLM

_LENGTHS = (1, 1 << 20)
_NOWHERE = -1


def empty_carry(model: CausalLM, rows: int) -> Cache:
    """What rows carry that have read nothing: the cache with the rows as the first axis of every leaf.

    Raises:
      ConfigError: the model cannot read on for ever with a cache of one size.
    """
    one, other = (_shapes(model, rows, length) for length in _LENGTHS)
    if one != other or _NOWHERE in jax.tree.leaves(_row_axes(model)):
        raise ConfigError(
            f"{_refusal(model)}: its cache grows with what it has read. Choose one whose cache has one size, such as a "
            "recurrent one, or set autoregressive.carry = False."
        )
    return rows_first(model, model.init_cache(rows, 1))


def rows_first(model: CausalLM, cache: Cache) -> Cache:
    """A cache as it is carried."""
    return jax.tree.map(lambda leaf, axis: jnp.moveaxis(leaf, axis, 0), cache, _row_axes(model))


def rows_back(model: CausalLM, carry: Cache) -> Cache:
    """What is carried as the cache that the model reads on with."""
    return jax.tree.map(lambda leaf, axis: jnp.moveaxis(leaf, 0, axis), carry, _row_axes(model))


def begun_anew(carry: Cache, empty: Cache, fresh: Bool[Array, " B"]) -> Cache:
    """`carry`, and `empty` in the rows that are `fresh`; no gradient goes back to what was carried."""

    def chosen(old: Array, new: Array) -> Array:
        where = fresh.reshape(-1, *[1] * (new.ndim - 1))
        return jnp.where(where, new, jax.lax.stop_gradient(old))

    return jax.tree.map(chosen, carry, empty)


def _shapes(model: CausalLM, rows: int, length: int) -> Any:
    try:
        return jax.eval_shape(lambda: model.init_cache(rows, length))
    except ConfigError as error:  # there is no position for so many tokens
        raise ConfigError(f"{_refusal(model)}: {error}") from None


def _refusal(model: CausalLM) -> str:
    return f"the model '{name_of(model)}' cannot carry its state from window to window"


def _row_axes(model: CausalLM) -> Any:
    """The axis of the rows in each leaf of a cache: the one that changes with their number."""
    two, three = (_shapes(model, rows, 1) for rows in (2, 3))

    def axis(a: Any, b: Any) -> int:
        return next((i for i, (x, y) in enumerate(zip(a.shape, b.shape, strict=True)) if x != y), _NOWHERE)

    return jax.tree.map(axis, two, three)
