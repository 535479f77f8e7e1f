"""What a model keeps of what it has read, as those who go on token by token use it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp

from lmlab.nn.layout import on_cpu
from lmlab.nn.stack import Layers, is_layers

if TYPE_CHECKING:
    from jaxtyping import Array, Float, Int

    from lmlab.contracts import Cache, Memory
    from lmlab.nn.functional import ModelDef

NO_ROWS = -1
"""The axis of rows of what has none."""


def read(model: Any, memory: Memory, tokens: Int[Array, "B T"], cache: Cache) -> tuple[Float[Array, "B T D"], Cache]:
    """The states after these tokens, and the cache that has read them; with a memory, they are targets of sources."""
    return model.hidden(tokens, cache=cache) if memory is None else model.decode(tokens, memory, cache=cache)


def empty_cache(model: Any, memory: Memory, rows: int, length: int) -> Cache:
    """A cache that has read nothing yet, for at most `length` tokens."""
    return model.init_cache(rows, length) if memory is None else model.init_decoding(memory, length)


def for_steps(model: ModelDef[Any], params: Mapping[str, Any]) -> Mapping[str, Any]:
    """The parameters as a loop reads them that goes on token by token.

    On a CPU that is block by block, since a stack would be cut up in every step; elsewhere the compiler reads a block's
    part where it lies.
    """
    return model.apart(params) if on_cpu() else params


def cache_for_steps(
    model: ModelDef[Any], params: Mapping[str, Any], memory: Memory, cache: Cache, rows: int, length: int
) -> Cache:
    """A cache in the form in which a step leaves it.

    Args:
      model: whose it is.
      params: `for_steps`.
      memory: what the sources say; None without such.
      cache: empty, or one that has read something; whether its layers stand together or apart.
      rows, length: what it is for.
    """
    bound = model.bind(params)
    token = jnp.zeros((rows, 1), jnp.int32)
    left = jax.eval_shape(lambda: read(bound, memory, token, empty_cache(bound, memory, rows, length))[1])
    return jax.tree.map(
        lambda after, now: Layers.of(now) if is_layers(after) and not is_layers(now) else now, left, cache,
        is_leaf=is_layers,
    )  # fmt: skip


def empty_for_steps(model: ModelDef[Any], params: Mapping[str, Any], memory: Memory, rows: int, length: int) -> Cache:
    """An empty cache in the form in which a step leaves it; arguments as of `cache_for_steps`."""
    cache = empty_cache(model.bind(params), memory, rows, length)
    return cache_for_steps(model, params, memory, cache, rows, length)


def rows_of_cache(empty: Callable[[Memory, int], Cache], memory: Memory) -> Any:
    """Where each leaf of a model's cache has its rows, as a tree of axes; `NO_ROWS` where a leaf has none.

    Found by asking for caches of two and of three rows: models keep them where they like.
    """

    def shapes(rows: int) -> Any:
        told = jax.tree.map(lambda x: jnp.zeros((rows, *x.shape[1:]), x.dtype), memory)
        return jax.eval_shape(lambda: empty(told, rows))

    def axis(two: Any, three: Any) -> int:
        found = [i for i, (a, b) in enumerate(zip(two.shape, three.shape, strict=True)) if (a, b) == (2, 3)]
        return found[0] if found else NO_ROWS

    return jax.tree.map(axis, shapes(2), shapes(3))


def picked(cache: Cache, axes: Any, rows: Int[Array, " R"]) -> Cache:
    """The cache of these rows; `axes` from `rows_of_cache`."""
    return jax.tree.map(lambda x, axis: x if axis == NO_ROWS else jnp.take(x, rows, axis), cache, axes)
