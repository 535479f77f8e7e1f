"""A model as a pure function of a flat dict of arrays.

The trainer carries parameters as `{"blocks/attention/qkv/kernel": array, ...}`; the module exists only inside a
traced function, for as long as it is called. `nnx.merge` matches leaves by sorted position and checks nothing but
their number, so that parameters in another order would be taken silently: `bind` compares every path and shape first.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import jax
from flax import nnx
from jax import Array
from jaxtyping import Key

from lmlab.errors import CheckpointError
from lmlab.nn.linear import Columns
from lmlab.nn.stack import Layers

ROLES = ("kernel", "bias", "scale", "embedding", "position")
"""What a parameter is for; optimizers choose by it (weight decay, Muon)."""

M = TypeVar("M", bound=nnx.Module)
Params = dict[str, Array]


class ParameterMismatch(CheckpointError, ValueError):
    """The parameters given are not those of the model, by path or by shape."""


@dataclass(frozen=True, eq=False)
class ModelDef(Generic[M]):
    """A model without its parameters.

    Attributes:
      graphdef: the structure, as `nnx.merge` takes it.
      shapes: every parameter's path and its shape and dtype.
      roles: every parameter's path and what it is for, one of `ROLES`.
      stacked: paths of the parameters that a stack of blocks has, with the blocks as their first axis.
      columns: paths of the kernels that are several products side by side, and what their columns are.
      rates: paths of the parameters that learn by another multiple of the learning rate than 1, and that (`nn.mup`).
    """

    graphdef: nnx.GraphDef[M]
    shapes: Mapping[str, jax.ShapeDtypeStruct]
    roles: Mapping[str, str]
    stacked: frozenset[str]
    columns: Mapping[str, Columns]
    rates: Mapping[str, float]
    _make: Callable[[nnx.Rngs], M]
    _keys: Mapping[str, tuple[Any, ...]]  # "blocks/0/kernel" came from ("blocks", 0, "kernel"): 0 is not "0"

    @classmethod
    def of(cls, make: Callable[[nnx.Rngs], M]) -> ModelDef[M]:
        """The model that `make` builds, found without computing anything.

        Raises:
          TypeError: the model holds arrays that are not `nnx.Param` (random state, caches, statistics), or a
            parameter without a role.
        """
        model = nnx.eval_shape(lambda: make(nnx.Rngs(jax.random.key(0))))
        graphdef, params, rest = nnx.split(model, nnx.Param, ...)  # type: ignore[misc]  # mypy knows no bare `...`
        held = [_path(keys) for keys, _ in nnx.to_flat_state(rest)]
        if held:
            raise TypeError(
                f"{type(model).__name__} holds {', '.join(held)}, which are not parameters. A module holds nnx.Param "
                "only: give keys and caches to its methods, and keep numbers that may be traced in a plain object."
            )
        flat = dict(nnx.to_flat_state(params))
        roles = {_path(keys): param.get_metadata().get("role") for keys, param in flat.items()}
        for path, role in roles.items():
            if role not in ROLES:
                raise TypeError(f"the parameter {path} has the role {role!r}: make it by nnx.Param(value, role=...) "
                                f"with one of {', '.join(ROLES)}.")  # fmt: skip
        shapes = {_path(keys): jax.ShapeDtypeStruct(param.shape, param.dtype) for keys, param in flat.items()}
        stacked = frozenset(_path(keys) for keys, param in flat.items() if param.get_metadata().get("stacked"))
        metadata = {_path(keys): param.get_metadata().get("columns") for keys, param in flat.items()}
        columns = {path: found for path, found in metadata.items() if found is not None}
        given = {_path(keys): param.get_metadata().get("rate", 1.0) for keys, param in flat.items()}
        rates = {path: rate for path, rate in given.items() if rate != 1.0}
        return cls(graphdef, shapes, roles, stacked, columns, rates, make, {_path(keys): keys for keys in flat})

    @property
    def size(self) -> int:
        """Number of parameters."""
        return sum(math.prod(shape.shape) for shape in self.shapes.values())

    def init(self, key: Key[Array, ""]) -> Params:
        """Fresh parameters by path: a pure function of a typed key, under jit and vmap too."""
        return parameters(self._make(nnx.Rngs(key)))

    def bind(self, params: Mapping[str, Any]) -> M:
        """The module with these parameters.

        Raises:
          ParameterMismatch: paths or shapes differ from the model's.
        """
        self.check({path: tuple(value.shape) for path, value in params.items()})
        return nnx.merge(self.graphdef, nnx.from_flat_state((self._keys[path], params[path]) for path in self.shapes))

    def merged(self, params: Mapping[str, Any]) -> dict[str, Any]:
        """The parameters of the model without an adapter that compute what these do; here, these (see `adapters`)."""
        return dict(params)

    def apart(self, params: Mapping[str, Any]) -> dict[str, Any]:
        """The parameters with those of stacks as `Layers`, block by block: for loops that read them again and again."""
        return {path: Layers.of(value) if path in self.stacked else value for path, value in params.items()}

    def check(self, shapes: Mapping[str, tuple[int, ...]]) -> None:
        """ParameterMismatch unless these are the model's parameters, naming each difference."""
        wanted = {path: tuple(shape.shape) for path, shape in self.shapes.items()}
        problems = [f"missing {path} {wanted[path]}" for path in sorted(wanted.keys() - shapes.keys())]
        problems += [f"unknown {path} {shapes[path]}" for path in sorted(shapes.keys() - wanted.keys())]
        problems += [
            f"{path} is {shapes[path]}, the model has {wanted[path]}"
            for path in sorted(wanted.keys() & shapes.keys())
            if shapes[path] != wanted[path]
        ]
        if problems:
            raise ParameterMismatch("these are not the model's parameters: " + "; ".join(problems))


def parameters(module: nnx.Module) -> Params:
    """A module's parameters by path."""
    return {_path(keys): param[...] for keys, param in nnx.to_flat_state(nnx.state(module, nnx.Param))}


def _path(keys: tuple[Any, ...]) -> str:
    return "/".join(map(str, keys))
