"""Parameters as small integers and what these are multiplied by: a model of which a fraction of the bytes is left.

A kernel (inputs, outputs) or an embedding (ids, width) W is kept as integers Q and scales s, W ≈ s Q: one scale for
each output (or id) with 8 bits, and one for each of these and `GROUP` numbers that are summed together with 4 bits, two
of which share a byte. What a layer reads is the product s Q, made where it is read: nothing else of a model changes.

With `w8a8` and `fp8` (numbers of 8 bits with a point: 4 bits of exponent, 3 of mantissa; Micikevicius et al. 2022,
arXiv:2209.05433) a linear map makes its input such numbers, too, with a scale for each token, and multiplies these with
Q as they are; the sum is exact (int32) or of float32, and is multiplied by both scales (Dettmers et al. 2022,
arXiv:2208.07339, section 2.1, without its outliers). Embeddings and what makes logits read s Q.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, Literal, TypeVar

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array
from jaxtyping import Key

from lmlab.nn.functional import ModelDef, Params
from lmlab.nn.stack import Layers, is_layers

Weights = Literal["float32", "int8", "int4", "w8a8", "fp8"]
"""How the matrices of a model are kept."""
FACTORS: dict[str, Any] = {"w8a8": jnp.int8, "fp8": jnp.float8_e4m3fn}
"""Of those whose numbers are multiplied as they are: what numbers these are, and what an input is made."""

GROUP = 64
"""Numbers of 4 bits that share a scale, where the axis that is summed over divides into so many; else all of it."""
SCALE = "/scale"
"""What stands behind a parameter's path in that of its scales."""
SUMMED = {"kernel": -2, "embedding": -1}
"""The axis that products sum over, by the role of the matrices that are kept as integers."""

M = TypeVar("M", bound=nnx.Module)


@jax.tree_util.register_pytree_node_class
class Codes:
    """A matrix, or a stack of such, as integers and scales: in the place of an array, which it makes when it is used.

    Args:
      values: int8; of 4 bits, two neighbours of the axis `summed` in each, the first in the lower half.
      scale: float32, as many axes as `values`; along `summed` one for each group, the other one is that of `values`.
      bits: 8 or 4.
      summed: the axis that is grouped, counted from the end.
    """

    def __init__(self, values: Any, scale: Any, bits: int, summed: int) -> None:
        self.values, self.scale, self.bits, self.summed = values, scale, bits, summed

    @property
    def shape(self) -> tuple[int, ...]:
        """That of the array."""
        axis = self.values.ndim + self.summed
        return tuple(n * (8 // self.bits) if i == axis else n for i, n in enumerate(self.values.shape))

    @property
    def ndim(self) -> int:
        """Its number of axes."""
        return len(self.shape)

    @property
    def size(self) -> int:
        """Its number of entries."""
        return int(self.values.size) * (8 // self.bits)

    @property
    def dtype(self) -> Any:
        """That of the array, float32."""
        return self.scale.dtype

    def astype(self, dtype: Any) -> Array:
        """The array in this dtype."""
        axis = self.values.ndim + self.summed
        values = self.values if self.bits == 8 else _unpacked(self.values, axis)
        groups = self.scale.shape[axis]
        apart = (*values.shape[:axis], groups, values.shape[axis] // groups, *values.shape[axis + 1 :])
        scaled = values.reshape(apart).astype(dtype) * jnp.expand_dims(self.scale, axis + 1).astype(dtype)
        return scaled.reshape(values.shape)

    def __jax_array__(self) -> Array:
        return self.astype(self.dtype)

    @property
    def T(self) -> Array:
        """The array, turned around."""
        return self.astype(self.dtype).T

    def __getitem__(self, index: Any) -> Any:
        """Itself for `...`; of the array of an embedding the rows of these ids, and no others are made."""
        if index is Ellipsis:
            return self
        if self.summed == -1 and hasattr(index, "dtype"):
            return Codes(self.values[index], self.scale[index], self.bits, -1).astype(self.dtype)
        return self.astype(self.dtype)[index]

    def tree_flatten(self) -> tuple[tuple[Any, Any], tuple[int, int]]:
        """Integers and scales."""
        return (self.values, self.scale), (self.bits, self.summed)

    @classmethod
    def tree_unflatten(cls, told: tuple[int, int], parts: tuple[Any, Any]) -> Codes:
        """As it was."""
        return cls(*parts, *told)


@jax.tree_util.register_pytree_node_class
class Factors(Codes):
    """Codes that a linear map multiplies as they are, by qwix's product."""

    def multiply(self, x: Array) -> Array:
        """x (..., inputs) times the matrix (inputs, outputs), in the dtype of x."""
        import qwix

        tokens = x.reshape(-1, x.shape[-1])
        left = qwix.quantize(tokens, self.values.dtype, channelwise_axes=[0])
        right = qwix.QArray(qvalue=self.values, scale=self.scale)
        product = qwix.dot_general(left, right, (((1,), (0,)), ((), ())))
        return product.astype(x.dtype).reshape(*x.shape[:-1], -1)


def _unpacked(values: Array, axis: int) -> Array:
    """Numbers of 4 bits, of which two stand in each of 8, one behind the other."""
    low, high = (values << 4) >> 4, values >> 4
    return jnp.stack((low, high), axis + 1).reshape(*values.shape[:axis], -1, *values.shape[axis + 1 :])


def packed(values: Array, axis: int) -> Array:
    """The reverse: int8 from -8 to 7, of an even number along the axis, as half as many."""
    pairs = values.reshape(*values.shape[:axis], -1, 2, *values.shape[axis + 1 :])
    low, high = (jnp.squeeze(part, axis + 1) for part in jnp.split(pairs, 2, axis + 1))
    return (low & 0xF) | (high << 4)


@dataclass(frozen=True, eq=False)
class QuantizedDef(ModelDef[M]):
    """A model some of whose parameters are integers, with their scales behind their path.

    Attributes:
      whole: the model of which all parameters are float32.
      summed: the paths of those that are integers, and the axis that is grouped.
      bits: of each number.
      multiplied: whether linear maps multiply them as they are.
    """

    whole: ModelDef[M]
    summed: Mapping[str, int]
    bits: int
    multiplied: bool = False

    @property
    def size(self) -> int:
        """Number of parameters, without scales."""
        return self.whole.size

    @property
    def codes(self) -> tuple[str, ...]:
        """Paths of integers and scales, which do not learn."""
        return tuple(name for path in self.summed for name in (path, f"{path}{SCALE}"))

    def init(self, key: Key[Array, ""]) -> Params:
        """Fresh parameters; those that are integers are zero: they are made of another run's."""
        fresh = self.whole.init(key)
        zero = {path: jnp.zeros(self.shapes[path].shape, self.shapes[path].dtype) for path in self.codes}
        return {path: zero[path] if path in zero else fresh[path] for path in self.shapes}

    def bind(self, params: Mapping[str, Any]) -> M:
        """The module with these parameters; see `ModelDef`."""
        self.check({path: tuple(value.shape) for path, value in params.items()})
        return self.whole.bind({path: self._array(path, params) for path in self.whole.shapes})

    def _array(self, path: str, params: Mapping[str, Any]) -> Any:
        if path not in self.summed:
            return params[path]
        values, scale, axis = params[path], params[f"{path}{SCALE}"], self.summed[path]
        kind = Factors if self.multiplied and axis == SUMMED["kernel"] else Codes
        if is_layers(values):
            pairs = zip(values.parts, scale.parts, strict=True)
            return Layers([kind(*pair, self.bits, axis) for pair in pairs])
        return kind(values, scale, self.bits, axis)


def quantized(model: ModelDef[M], weights: Weights) -> ModelDef[M]:
    """The model with its matrices as integers; itself for `float32`. Norms, biases and positions stay as they are."""
    if weights == "float32":
        return model
    bits, number = 4 if weights == "int4" else 8, FACTORS.get(weights, jnp.int8)
    summed = {path: SUMMED[role] for path, role in model.roles.items() if _fits(model, path, role, bits)}
    shapes, roles, stacked = dict(model.shapes), dict(model.roles), set(model.stacked)
    for path, axis in summed.items():
        values, scale = _shapes(model.shapes[path].shape, axis, bits)
        shapes[path] = jax.ShapeDtypeStruct(values, number)
        shapes[f"{path}{SCALE}"] = jax.ShapeDtypeStruct(scale, jnp.float32)
        roles[f"{path}{SCALE}"] = "scale"
        if path in stacked:
            stacked.add(f"{path}{SCALE}")
    given = {field.name: getattr(model, field.name) for field in fields(model)}
    changed = {"shapes": shapes, "roles": roles, "stacked": frozenset(stacked)}
    multiplied = weights in FACTORS
    return QuantizedDef(**{**given, **changed}, whole=model, summed=summed, bits=bits, multiplied=multiplied)


def _fits(model: ModelDef[Any], path: str, role: str, bits: int) -> bool:
    """Whether a parameter is a matrix, whose numbers of 4 bits fill whole bytes."""
    shape = model.shapes[path].shape
    if role not in SUMMED or len(shape) - (path in model.stacked) != 2:
        return False
    return bits == 8 or shape[SUMMED[role]] % 2 == 0


def groups_of(size: int, bits: int) -> int:
    """The number of scales along an axis of so many numbers."""
    return size // GROUP if bits == 4 and size % GROUP == 0 else 1


def _shapes(shape: tuple[int, ...], summed: int, bits: int) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Those of the integers, as they are packed, and of the scales."""
    values, scale = list(shape), list(shape)
    values[summed] //= 8 // bits
    scale[summed] = groups_of(shape[summed], bits)
    return tuple(values), tuple(scale)
