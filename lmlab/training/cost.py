"""What a step costs, counted from its jaxpr: nothing is compiled or computed."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import jax
import numpy as np
from jax.interpreters.partial_eval import dce_jaxpr


def matmul_flops(jaxpr: Any) -> int:
    """Floating-point operations of all matrix products and convolutions: 2 per multiply-add.

    The body of a scan counts once per iteration, what remat computes again counts again, of a conditional's branches
    the most expensive counts, and the body of a while loop, whose length is not known, counts once. What no result
    depends on does not count: no compiler keeps it.

    Args:
      jaxpr: a (closed) jaxpr, from `jax.make_jaxpr`.
    """
    opened = _open(jaxpr)
    needed, _ = dce_jaxpr(opened, [True] * len(opened.outvars))
    return sum(_flops_of(equation) for equation in needed.eqns)


def count_by_group(shapes: Mapping[str, Any]) -> dict[str, int]:
    """Number of elements by the first part of each path: `blocks/attention/...` counts for `blocks`."""
    groups: dict[str, int] = {}
    for path, shape in shapes.items():
        group = path.split("/")[0]
        groups[group] = groups.get(group, 0) + math.prod(shape.shape)
    return groups


def total_bytes(tree: Any) -> int:
    """Bytes of all arrays of a tree of ShapeDtypeStructs, over all devices, each part counted once."""
    return sum(_size(leaf.shape, leaf.dtype) for leaf in jax.tree.leaves(tree))


def device_bytes(tree: Any) -> int:
    """Bytes of one device's share of a tree of ShapeDtypeStructs with shardings."""
    return sum(_size(leaf.sharding.shard_shape(leaf.shape), leaf.dtype) for leaf in jax.tree.leaves(tree))


def _flops_of(equation: Any) -> int:
    parameters = equation.params
    match equation.primitive.name:
        case "dot_general":
            (contracted, _), _ = parameters["dimension_numbers"]
            left, out = equation.invars[0].aval, equation.outvars[0].aval
            return 2 * out.size * math.prod(left.shape[axis] for axis in contracted)
        case "conv_general_dilated":
            kernel, out = equation.invars[1].aval, equation.outvars[0].aval
            outputs = kernel.shape[parameters["dimension_numbers"].rhs_spec[0]]
            return 2 * out.size * kernel.size // outputs
        case "scan":
            return parameters["length"] * matmul_flops(parameters["jaxpr"])
        case "cond":
            return max(matmul_flops(branch) for branch in parameters["branches"])
    return sum(matmul_flops(inner) for inner in _jaxprs(parameters.values()))


def _jaxprs(values: Iterable[Any]) -> Iterator[Any]:
    for value in values:
        if hasattr(value, "eqns") or hasattr(value, "jaxpr"):
            yield value
        elif isinstance(value, (tuple, list)):
            yield from _jaxprs(value)


def _open(jaxpr: Any) -> Any:
    return getattr(jaxpr, "jaxpr", jaxpr)


def _size(shape: tuple[int, ...], dtype: Any) -> int:
    return math.prod(shape) * np.dtype(dtype).itemsize
