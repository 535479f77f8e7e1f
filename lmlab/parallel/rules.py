"""Which axis of a parameter lies over which axis of the mesh, by regular expressions over parameter paths."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

import jax
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from lmlab.errors import ConfigError
from lmlab.nn.layout import ROWS
from lmlab.parallel.batches import by_row

Rules = Sequence[tuple[str, tuple[str | None, ...]]]

RULES: Rules = (
    # The factors of an adapter are small.
    (r"^adapter/", ()),
    # Column parallel: the output of these is split (over heads, or over the hidden width) ...
    (r"(^|/)(qkv|q|k|v|query|key|value|up|gate)/kernel$", ("fsdp", "tensor")),
    (r"(^|/)(qkv|q|k|v|query|key|value|up|gate)/bias$", ("tensor",)),
    # ... and row parallel: these take split inputs, and their output is summed. One reduction per pair.
    (r"(^|/)(out|down)/kernel$", ("tensor", "fsdp")),
    # The gates of a recurrent layer lie side by side, so that splitting them would cut across gates: no tensor axis.
    (r"(^|/)(input|recurrent)/kernel$", ("fsdp", None)),
    # The vocabulary is not split: its size rarely divides, and a byte or character vocabulary is small.
    (r"(^|/)(\w*embedding\w*|embed|tokens)(/\w+)?$", (None, "fsdp")),
    (r"(^|/)(head|router|pooler|transform|project\w*|logits)/kernel$", ("fsdp", None)),
    (r"(^|/)(position|positions)(/\w+)?$", ()),
    (r"(^|/)(bias|scale)$", ()),
    # Statistical models: laws of hidden states, and sorted tables.
    (r"(^|/)(start|transition|emission|grams|counts)$", ()),
    (r"(^|/)chain/(transitions|first|last)$", ()),
)
"""Trailing axes; the axes before them (the layers of a stack) are not split. First match wins."""


def shardings(mesh: Mesh, rules: Rules, state: Any) -> Any:
    """A sharding for every array of a state.

    The parameters are `state.params`, or the state itself where it is a dict of parameters. What the optimizer
    keeps per parameter, under the parameter's path and with its shape, lies as the parameter does; what the rows of the
    batch carry lies as they do; all else is replicated.

    Args:
      mesh: the devices.
      rules: pairs of a regular expression (searched in the path) and mesh axes of the trailing dimensions.
      state: a pytree of anything with a shape.

    Raises:
      ConfigError: a parameter that no rule covers, or that does not divide over its axes.
    """
    params: Mapping[str, Any] = getattr(state, "params", state)
    layouts = {path: parameter_spec(path, tuple(leaf.shape), rules, mesh) for path, leaf in params.items()}

    def layout(keys: tuple[Any, ...], leaf: Any) -> NamedSharding:
        if by_row(keys):
            return NamedSharding(mesh, PartitionSpec(ROWS))
        path = next((key.key for key in reversed(keys) if isinstance(key, jax.tree_util.DictKey)), "")
        like = path in layouts and tuple(leaf.shape) == tuple(params[path].shape)
        return NamedSharding(mesh, layouts[path] if like else PartitionSpec())

    return jax.tree_util.tree_map_with_path(layout, state)


def parameter_spec(path: str, shape: tuple[int, ...], rules: Rules, mesh: Mesh) -> PartitionSpec:
    """The layout of one parameter: replicated where the mesh splits no parameters, else by the first rule that matches.

    Raises:
      ConfigError: as `shardings`.
    """
    if mesh.shape["fsdp"] * mesh.shape["tensor"] == 1:
        return PartitionSpec()
    axes = next((axes for pattern, axes in rules if _matches(pattern, path)), None)
    if axes is None:
        raise ConfigError(
            f"mesh.rules: no rule covers the parameter '{path}' {shape}. "
            f"Add one, such as ('{re.escape(path)}$', ()) to keep it whole on every device."
        )
    if len(axes) > len(shape):
        raise ConfigError(f"mesh.rules: the rule for '{path}' names {len(axes)} axes {axes}; its shape is {shape}.")
    for size, axis in zip(shape[len(shape) - len(axes) :], axes, strict=True):
        if axis is not None and size % _size(mesh, axis, path):
            raise ConfigError(
                f"mesh: the parameter '{path}' {shape} has a dimension of {size}, which does not divide over "
                f"{axis}={mesh.shape[axis]}. Change mesh.{axis}, or the model's size, or add a rule to mesh.rules that "
                f"keeps it whole: ('{re.escape(path)}$', ())."
            )
    return PartitionSpec(*[None] * (len(shape) - len(axes)), *axes)


def _matches(pattern: str, path: str) -> bool:
    try:
        return re.search(pattern, path) is not None
    except re.error as error:
        raise ConfigError(f"mesh.rules: '{pattern}' is not a regular expression: {error}.") from None


def _size(mesh: Mesh, axis: str, path: str) -> int:
    if axis not in mesh.shape:
        raise ConfigError(
            f"mesh.rules: the rule for '{path}' names the axis '{axis}'; the mesh has {', '.join(mesh.shape)}."
        )
    return mesh.shape[axis]
