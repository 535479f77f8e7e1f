"""Adapters: a few parameters beside a model's own, of which, together, the ones that it computes with are made.

The model does not know of them. `Adapted` stands in its place wherever parameters meet a model, so that a run with an
adapter is trained, evaluated, sampled and saved as any other.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Generic, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Float, Key

from lmlab.errors import ConfigError
from lmlab.nn.functional import M, ModelDef, Params
from lmlab.ranges import Count, Positive
from lmlab.registry import adapters

ADAPTER = "adapter/"
"""What the paths of an adapter's parameters begin with."""
STREAM = 0x10A
"""Keeps the draws of adapters apart from those of the model."""


@dataclass(frozen=True, eq=False)
class Adapted(ModelDef[M], Generic[M]):
    """A model with an adapter: its parameters are the model's own and, under `adapter/`, the adapter's.

    Attributes:
      plain: the model alone.
    """

    plain: ModelDef[M]
    _merge: Callable[[Params], Params]
    _begin: Callable[[Key[Array, ""]], Params]

    @classmethod
    def by(
        cls,
        plain: ModelDef[M],
        shapes: Mapping[str, tuple[int, ...]],
        stacked: Collection[str],
        merge: Callable[[Params], Params],
        begin: Callable[[Key[Array, ""]], Params],
    ) -> Adapted[M]:
        """A model with matrices beside its own.

        Args:
          plain: the model.
          shapes: of the adapter's parameters, which are float32, by path.
          stacked: those of them that have blocks as their first axis.
          merge: makes the model's own parameters of all.
          begin: draws the adapter's parameters.
        """
        more = {path: jax.ShapeDtypeStruct(shape, jnp.float32) for path, shape in shapes.items()}
        return cls(
            plain.graphdef,
            {**plain.shapes, **more},
            {**plain.roles, **dict.fromkeys(more, "kernel")},
            plain.stacked | frozenset(stacked),
            plain.columns,
            plain.rates,
            plain._make,
            plain._keys,
            plain,
            merge,
            begin,
        )

    def init(self, key: Key[Array, ""]) -> Params:
        """Fresh parameters: those that the model alone would have, and the adapter's."""
        return {**self.plain.init(key), **self._begin(jax.random.fold_in(key, STREAM))}

    def merged(self, params: Mapping[str, Any]) -> dict[str, Any]:
        """The parameters of the model alone that compute what these do; those of the model alone as they are."""
        if params.keys() == self.plain.shapes.keys():
            return dict(params)
        self.check({path: tuple(value.shape) for path, value in params.items()})
        if any(isinstance(value, jax.ShapeDtypeStruct) for value in params.values()):
            return jax.eval_shape(self._merge, dict(params))
        return self._merge(dict(params))

    def bind(self, params: Mapping[str, Any]) -> M:
        """The module with these parameters, merged; they may be so already."""
        return self.plain.bind(self.merged(params))

    def apart(self, params: Mapping[str, Any]) -> dict[str, Any]:
        """The merged parameters, those of stacks block by block."""
        return self.plain.apart(self.merged(params))


class Product(NamedTuple):
    """A matrix that an adapter adds to.

    Attributes:
      path: of the kernel that it is, or is a part of.
      name: its path as that of a kernel of its own; of the queries of `attention/qkv/kernel`, `attention/q/kernel`.
      part: its place among the products of the kernel; None where the kernel is one.
      shape: (..., in, out).
    """

    path: str
    name: str
    part: int | None
    shape: tuple[int, ...]

    def factor(self, which: str) -> str:
        """The path of one of its factors."""
        return f"{ADAPTER}{self.name}/{which}"


@adapters.register("lora")
@dataclass(frozen=True)
class LoRA:
    """Low-rank adaptation: W + (alpha / rank) · A · B, where W does not learn (Hu et al. 2021, arXiv:2106.09685).

    A (in, rank) is drawn as the authors' code draws it, uniformly within 1/√in; B (rank, out) is 0, so that the model
    begins as what it is adapted from. Each product has its own: queries, keys and values that lie in one kernel do,
    and each block of a stack. The loss's own head learns in full. Inputs are not dropped (`lora_dropout`), since the
    sum is made before anything is read.

    Args:
      rank: r.
      alpha: how much the product counts; its share is alpha / rank, so that a rate suits several ranks.
      kernels: regular expressions; the kernels whose path one of them is found in are adapted. Queries, keys and
        values that lie in one kernel have paths as if they were apart: `blocks/attention/q/kernel`.
      train: regular expressions; the model's own parameters whose path one of them is found in learn in full.
    """

    TINY: ClassVar[str] = "experiment.model = @gpt\nlora.rank = 2"

    rank: Count = 8
    alpha: Positive = 16.0
    kernels: tuple[str, ...] = (r"/(q|v)/kernel$",)
    train: tuple[str, ...] = ()

    def adapt(self, model: ModelDef[Any], own: Collection[str]) -> Adapted[Any]:
        """The model with factors beside the chosen ones of its `own` kernels.

        Raises:
          ConfigError: a pattern finds no kernel, or the rank is no lower than that of a kernel.
        """
        chosen = self._chosen(model, own)
        shapes: dict[str, tuple[int, ...]] = {}
        for product in chosen:
            *lead, inputs, outputs = product.shape
            if self.rank > min(inputs, outputs):
                raise ConfigError(
                    f"lora.rank = {self.rank} is more than the rank of {product.name}, {inputs} × {outputs}. "
                    f"Take at most {min(inputs, outputs)}, or leave this kernel out of lora.kernels."
                )
            shapes[product.factor("a")] = (*lead, inputs, self.rank)
            shapes[product.factor("b")] = (*lead, self.rank, outputs)
        stacked = {product.factor(which) for product in chosen if product.path in model.stacked for which in "ab"}

        def begin(key: Key[Array, ""]) -> Params:
            keys = jax.random.split(key, len(shapes))
            return {path: _begun(path, shape, k) for (path, shape), k in zip(shapes.items(), keys, strict=True)}

        def merge(params: Params) -> Params:
            plain = {path: params[path] for path in model.shapes}
            for path in dict.fromkeys(product.path for product in chosen):
                parts = {product.part: self.difference(product, params) for product in chosen if product.path == path}
                plain[path] = plain[path] + _side_by_side(model, path, parts)
            return plain

        return Adapted.by(model, shapes, stacked, merge, begin)

    def difference(self, product: Product, params: Mapping[str, Array]) -> Float[Array, "... I O"]:
        """(alpha / rank) · A · B."""
        a, b = params[product.factor("a")], params[product.factor("b")]
        return self.alpha / self.rank * jnp.matmul(a, b, precision=jax.lax.Precision.HIGHEST)

    def learns(self, path: str) -> bool:
        """Whether one of the model's own parameters does, by `train`."""
        return any(re.search(pattern, path) for pattern in self.train)

    def _chosen(self, model: ModelDef[Any], own: Collection[str]) -> list[Product]:
        there = [product for product in products(model) if product.path in own]
        chosen: set[Product] = set()
        for pattern in _checked("kernels", self.kernels):
            found = {one for one in there if re.search(pattern, one.name) or re.search(pattern, one.path)}
            if not found:
                raise ConfigError(
                    f"lora.kernels: no kernel's path has '{pattern}' in it. The model has:\n  "
                    + "\n  ".join(product.name for product in there)
                )
            chosen |= found
        for pattern in _checked("train", self.train):
            if not any(re.search(pattern, path) for path in own):
                raise ConfigError(f"lora.train: no parameter's path has '{pattern}' in it. The model has:\n  "
                                  + "\n  ".join(own))  # fmt: skip
        return [product for product in there if product in chosen]


def products(model: ModelDef[Any]) -> Iterator[Product]:
    """The matrices of a model: its kernels, and the parts of those that are several side by side."""
    for path, role in model.roles.items():
        shape = model.shapes[path].shape
        if role != "kernel" or len(shape) < (3 if path in model.stacked else 2):
            continue
        columns = model.columns.get(path)
        if columns is None:
            yield Product(path, path, None, shape)
            continue
        above, _, leaf = path.rpartition("/")
        parent = above.rpartition("/")[0]
        for part, name in enumerate(columns.names):
            yield Product(path, f"{parent}/{name}/{leaf}", part, (*shape[:-1], shape[-1] // len(columns.names)))


def _side_by_side(model: ModelDef[Any], path: str, parts: Mapping[int | None, Array]) -> Array:
    """What is added to a kernel: the difference, or those of its parts in the order of its columns, and 0 elsewhere."""
    if None in parts:
        return parts[None]
    columns = model.columns[path]
    nothing = jnp.zeros_like(next(iter(parts.values())))
    by_head = [parts.get(part, nothing) for part in range(len(columns.names))]
    split = [part.reshape(*part.shape[:-1], columns.heads, -1) for part in by_head]
    return jnp.stack(split, axis=-2).reshape(model.shapes[path].shape)


def _begun(path: str, shape: tuple[int, ...], key: Key[Array, ""]) -> Array:
    if path.endswith("/b"):
        return jnp.zeros(shape, jnp.float32)
    bound = 1 / math.sqrt(shape[-2])
    return jax.random.uniform(key, shape, jnp.float32, -bound, bound)


def _checked(name: str, patterns: Collection[str]) -> Collection[str]:
    for pattern in patterns:
        try:
            re.compile(pattern)
        except re.error as error:
            raise ConfigError(f"lora.{name}: '{pattern}' is no regular expression: {error}.") from None
    return patterns
