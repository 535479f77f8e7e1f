"""The states that a model has after each of its blocks."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import jax

if TYPE_CHECKING:
    from jaxtyping import Array

    from lmlab.nn.functional import ModelDef


def depth(model: ModelDef[Any]) -> int | None:
    """Blocks of the model's only stack; None where it has none, or several of different depths."""
    depths = {model.shapes[path].shape[0] for path in model.stacked}
    return depths.pop() if len(depths) == 1 else None


def first_blocks(
    model: ModelDef[Any], params: Mapping[str, Array], count: int
) -> tuple[ModelDef[Any], dict[str, Array]]:
    """The model as it is with its first `count` blocks alone: what stands behind the stack, as a norm, is kept.

    Args:
      model: with a `depth`.
      params: path -> array.
      count: from 1 to the depth.
    """
    shapes = {
        path: jax.ShapeDtypeStruct((count, *shape.shape[1:]), shape.dtype) if path in model.stacked else shape
        for path, shape in model.shapes.items()
    }
    kept = {path: value[:count] if path in model.stacked else value for path, value in params.items()}
    return dataclasses.replace(model, shapes=shapes), kept
