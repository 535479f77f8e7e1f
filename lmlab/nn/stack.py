"""L equal blocks, one after the other: parameters with a leading axis L, run by a loop that is scanned or unrolled."""

from __future__ import annotations

from collections.abc import Callable, Sequence
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


@jax.tree_util.register_pytree_node_class
class Layers:
    """What a stack has of each block, one array for each, in the place of one array with a leading axis L.

    A loop that reads blocks again and again, such as decoding, would cut them out of the whole each time: on a CPU that
    copies all parameters for every token.

    Args:
      parts: of the blocks, in their order.
    """

    def __init__(self, parts: Sequence[Any]) -> None:
        self.parts = tuple(parts)

    @classmethod
    def of(cls, whole: Array) -> Layers:
        """The parts of an array with a leading axis L."""
        return cls([jnp.squeeze(part, 0) for part in jax.lax.split(whole, (1,) * whole.shape[0])])

    @property
    def shape(self) -> tuple[int, ...]:
        """That of the whole."""
        return (len(self.parts), *self.parts[0].shape)

    @property
    def dtype(self) -> Any:
        """That of the parts."""
        return self.parts[0].dtype

    def tree_flatten(self) -> tuple[tuple[Any, ...], None]:
        """The parts."""
        return self.parts, None

    @classmethod
    def tree_unflatten(cls, _: None, parts: Sequence[Any]) -> Layers:
        """As it was."""
        return cls(parts)


def is_layers(value: Any) -> bool:
    """Whether it is what a stack has, block by block."""
    return isinstance(value, Layers)


def joined(value: Any) -> Any:
    """The whole of what is there block by block, and what is whole as it is."""
    return jnp.stack(value.parts) if is_layers(value) else value


def make_stack(make: Callable[[nnx.Rngs], B], layers: int, rngs: nnx.Rngs) -> B:
    """One module that holds the parameters of `layers` independently initialised blocks, stacked on a leading axis."""
    graphdef = nnx.graphdef(nnx.eval_shape(lambda: make(nnx.Rngs(jax.random.key(0)))))
    keys = jax.random.split(rngs.params(), layers)
    stack = nnx.merge(graphdef, jax.vmap(lambda key: nnx.state(make(nnx.Rngs(key))))(keys))
    for _, param in nnx.to_flat_state(nnx.state(stack, nnx.Param)):
        param.set_metadata(stacked=True)
    return stack


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
      blocks: from `make_stack`. Where its parameters are `Layers`, all blocks are written out, for no gradient, and the
        outputs are `Layers`.
      body: may close over arrays.
      carry: what one layer hands to the next.
      inputs: a pytree with a leading axis L, one slice for each layer (its part of a cache), or None.
      scan: `lax.scan`, which compiles one block; False writes all of them out.
      remat: see `Remat`.

    Returns:
      The last carry, and the outputs stacked on a leading axis L.
    """
    graphdef, state = nnx.split(blocks)
    first = jax.tree.leaves(state, is_leaf=is_layers)[0]
    layers, apart = first.shape[0], is_layers(first)

    def layer(carry: Any, xs: tuple[Any, Array, Any]) -> tuple[Any, Any]:
        params, index, given = xs
        return body(nnx.merge(graphdef, params), carry, (index, given))

    if remat != "none" and not apart:
        # Inside a scan nothing can be shared with the forward pass, so that no barrier against it is needed.
        layer = jax.checkpoint(layer, policy=_POLICIES[remat], prevent_cse=not scan)
    xs = (state, jnp.arange(layers), inputs)
    if scan and not apart:
        return jax.lax.scan(layer, carry, xs)
    outputs = []
    for x in _slices(xs, layers):
        carry, output = layer(carry, x)
        outputs.append(output)
    return carry, jax.tree.map(lambda *leaves: Layers(leaves) if apart else jnp.stack(leaves), *outputs)


def unstack(blocks: B) -> list[B]:
    """The blocks of a stack one by one, for loops that `run_stack` does not fit."""
    graphdef, state = nnx.split(blocks)
    layers = jax.tree.leaves(state, is_leaf=is_layers)[0].shape[0]
    return [nnx.merge(graphdef, part) for part in _slices(state, layers)]


def _slices(xs: Any, layers: int) -> list[Any]:
    """The layers' parts by a split: its gradient is one concatenation, that of indexing a sum of L padded arrays."""
    leaves, structure = jax.tree.flatten(xs, is_leaf=is_layers)
    parts = [(leaf if is_layers(leaf) else Layers.of(leaf)).parts for leaf in leaves]
    return [jax.tree.unflatten(structure, part) for part in zip(*parts, strict=True)]
