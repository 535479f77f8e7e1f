"""Where the parameters of a model lie in another library's checkpoint, and how they are rearranged: both ways."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np

LAYER = "{}"
"""Stands in a name for the number of a block."""

Shape = tuple[int, ...]


@dataclass(frozen=True)
class Place:
    """The tensors that a parameter is made of, and how; of one block, where their names have a `LAYER`.

    All of it is rearrangement. `write` is of array methods alone, so that shapes can be found by tracing it.

    Attributes:
      names: of the tensors.
      read: makes the parameter of them.
      write: makes them of the parameter.
    """

    names: tuple[str, ...]
    read: Callable[[Sequence[Any]], Any]
    write: Callable[[Any], Sequence[Any]]

    @property
    def layered(self) -> bool:
        """Whether there is such a tensor in every block; the parameter has the blocks as its first axis."""
        return LAYER in self.names[0]


Places = dict[str, Place]
"""Places by the paths of lmlab's parameters."""


def shapes_of(places: Places, parameters: Mapping[str, jax.ShapeDtypeStruct]) -> dict[str, Shape]:
    """The shape that each tensor must have for the parameters to have theirs."""
    shapes = {}
    for path, place in places.items():
        whole = parameters[path]
        one = jax.ShapeDtypeStruct(whole.shape[1:], whole.dtype) if place.layered else whole
        parts = jax.eval_shape(place.write, one)
        for layer in range(whole.shape[0] if place.layered else 1):
            for name, part in zip(place.names, parts, strict=True):
                shapes[name.replace(LAYER, str(layer))] = tuple(part.shape)
    return shapes


def read_parameter(place: Place, shape: Shape, tensor: Callable[[str], np.ndarray]) -> np.ndarray:
    """A parameter, float32, of the tensors that `tensor` gives by their names; one block's at a time."""
    made = np.empty(shape, np.float32)
    if not place.layered:
        made[...] = place.read([tensor(name) for name in place.names])
        return made
    for layer, block in enumerate(made):
        block[...] = place.read([tensor(name.replace(LAYER, str(layer))) for name in place.names])
    return made


def write_parameter(place: Place, value: np.ndarray) -> dict[str, np.ndarray]:
    """The tensors of a parameter by their names, contiguous."""
    blocks = enumerate(value) if place.layered else [(0, value)]
    return {
        name.replace(LAYER, str(layer)): np.ascontiguousarray(part)
        for layer, block in blocks
        for name, part in zip(place.names, place.write(block), strict=True)
    }


def same(name: str) -> Place:
    """As it is."""
    return Place((name,), lambda parts: parts[0], lambda value: (value,))


def turned(name: str) -> Place:
    """With its last two axes exchanged: `torch.nn.Linear` keeps (outputs, inputs)."""
    return Place((name,), lambda parts: parts[0].swapaxes(-1, -2), lambda value: (value.swapaxes(-1, -2),))


def linear(path: str, name: str) -> Places:
    """Kernel and bias of a `torch.nn.Linear`."""
    return {f"{path}/kernel": turned(f"{name}.weight"), f"{path}/bias": same(f"{name}.bias")}


def columns(path: str, name: str) -> Places:
    """Kernel and bias of a product that keeps (inputs, outputs), as lmlab's do."""
    return {f"{path}/kernel": same(f"{name}.weight"), f"{path}/bias": same(f"{name}.bias")}


def norm(path: str, name: str) -> Places:
    """Scale and bias of a normalisation."""
    return {f"{path}/scale": same(f"{name}.weight"), f"{path}/bias": same(f"{name}.bias")}


def by_head(names: Sequence[str], heads: int, *, kernel: bool) -> Place:
    """Columns of queries, keys and values, (H, K) each, which lmlab has as (H, 3, K) in one array."""

    def turn(part: Any) -> Any:
        return part.swapaxes(-1, -2) if kernel else part

    def read(parts: Sequence[Any]) -> Any:
        each = [turn(part) for part in parts]
        lead = each[0].shape[:-1]
        return np.stack([part.reshape(*lead, heads, -1) for part in each], axis=-2).reshape(*lead, -1)

    def write(value: Any) -> Sequence[Any]:
        lead = value.shape[:-1]
        split = value.reshape(*lead, heads, len(names), -1)
        return [turn(split[..., i, :].reshape(*lead, -1)) for i in range(len(names))]

    return Place(tuple(names), read, write)


def fused(name: str, heads: int) -> Place:
    """Columns [q | k | v], each by head, in one tensor, which lmlab has as (H, 3, K)."""

    def read(parts: Sequence[Any]) -> Any:
        (whole,) = parts
        lead = whole.shape[:-1]
        return whole.reshape(*lead, 3, heads, -1).swapaxes(-3, -2).reshape(*lead, -1)

    def write(value: Any) -> Sequence[Any]:
        lead = value.shape[:-1]
        return (value.reshape(*lead, heads, 3, -1).swapaxes(-3, -2).reshape(*lead, -1),)

    return Place((name,), read, write)
