"""L equal blocks, one after the other: parameters with a leading axis L, run by a loop that is scanned or unrolled."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal, TypeVar

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array

B = TypeVar("B", bound=nnx.Module)
Remat = Literal["none", "dots", "full"]
"""What the backward pass computes again: nothing, all but the products with parameters, or each block whole."""

KEPT = "kept"
"""`checkpoint_name(x, KEPT)` has `dots` keep x, too: for what costs much to compute again and little to keep."""

_POLICIES: dict[str, Any] = {
    "dots": jax.checkpoint_policies.save_from_both_policies(
        jax.checkpoint_policies.dots_with_no_batch_dims_saveable,
        jax.checkpoint_policies.save_only_these_names(KEPT),
    ),
    "full": None,
}


def make_stack(make: Callable[[nnx.Rngs], B], layers: int, rngs: nnx.Rngs) -> B:
    """One module that holds the parameters of `layers` independently initialised blocks, stacked on a leading axis."""
    graphdef = nnx.graphdef(nnx.eval_shape(lambda: make(nnx.Rngs(jax.random.key(0)))))
    keys = jax.random.split(rngs.params(), layers)
    return nnx.merge(graphdef, jax.vmap(lambda key: nnx.state(make(nnx.Rngs(key))))(keys))


def run_stack(
    blocks: B,
    body: Callable[[B, Any, tuple[Array, Any]], tuple[Any, Any]],
    carry: Any,
    inputs: Any = None,
    *,
    scan: bool,
    remat: Remat,
) -> tuple[Any, Any]:
    """Runs `carry, output = body(block, carry, (layer index, input))` over the layers.

    Args:
      blocks: from `make_stack`.
      body: may close over arrays.
      carry: what one layer hands to the next.
      inputs: a pytree with a leading axis L, one slice for each layer (its part of a cache), or None.
      scan: `lax.scan`, which compiles one block; False writes all of them out.
      remat: see `Remat`.

    Returns:
      The last carry, and the outputs stacked on a leading axis L.
    """
    graphdef, state = nnx.split(blocks)
    layers = jax.tree.leaves(state)[0].shape[0]

    def layer(carry: Any, xs: tuple[Any, Array, Any]) -> tuple[Any, Any]:
        params, index, given = xs
        return body(nnx.merge(graphdef, params), carry, (index, given))

    if remat != "none":
        # Inside a scan nothing can be shared with the forward pass, so that no barrier against it is needed.
        layer = jax.checkpoint(layer, policy=_POLICIES[remat], prevent_cse=not scan)
    xs = (state, jnp.arange(layers), inputs)
    if scan:
        return jax.lax.scan(layer, carry, xs)
    outputs = []
    for x in _slices(xs, layers):
        carry, output = layer(carry, x)
        outputs.append(output)
    return carry, jax.tree.map(lambda *leaves: jnp.stack(leaves), *outputs)


def unstack(blocks: B) -> list[B]:
    """The blocks of a stack one by one, for loops that `run_stack` does not fit."""
    graphdef, state = nnx.split(blocks)
    return [nnx.merge(graphdef, part) for part in _slices(state, jax.tree.leaves(state)[0].shape[0])]


def _slices(xs: Any, layers: int) -> list[Any]:
    """The layers' parts by a split: its gradient is one concatenation, that of indexing a sum of L padded arrays."""
    leaves, structure = jax.tree.flatten(xs)
    parts = [[jnp.squeeze(part, 0) for part in jax.lax.split(leaf, (1,) * layers)] for leaf in leaves]
    return [jax.tree.unflatten(structure, part) for part in zip(*parts, strict=True)]
