"""Products with learned matrices: linear maps and embeddings."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array
from jaxtyping import Float, Int

from lmlab.nn.layout import known

Initializer = Callable[..., Array]
"""`(key, shape, dtype) -> array`, as in `jax.nn.initializers`; its numbers may be tracers."""


class Columns(NamedTuple):
    """What the columns of a kernel are, where it is several products in one: ordered (heads, names, width of a head).

    Attributes:
      names: of the products.
      heads: H.
    """

    names: tuple[str, ...]
    heads: int


class Linear(nnx.Module):
    """x @ kernel + bias, computed in the dtype of x.

    Args:
      inputs, outputs: widths; the kernel is (inputs, outputs).
      init: of the kernel. A bias starts at zero.
      bias: False leaves it out.
      columns: what lies side by side in the kernel, where that is several products (see `functional.ModelDef`).
    """

    def __init__(
        self,
        inputs: int,
        outputs: int,
        init: Initializer,
        *,
        bias: bool = True,
        columns: Columns | None = None,
        rngs: nnx.Rngs,
    ) -> None:
        value = init(rngs.params(), (inputs, outputs), jnp.float32)
        self.kernel = nnx.Param(value, role="kernel", columns=columns)
        self.bias = nnx.Param(jnp.zeros(outputs), role="bias") if bias else None

    def __call__(self, x: Float[Array, "*N inputs"]) -> Float[Array, "*N outputs"]:
        """The product; one matrix product where x has one leading axis."""
        kernel: Any = self.kernel[...]
        y = x @ kernel.astype(x.dtype) if self.plain else kernel.multiply(x)
        return y if self.bias is None else y + self.bias[...].astype(x.dtype)

    @property
    def plain(self) -> bool:
        """Whether the kernel is an array or stands for one; another knows by itself how it is multiplied."""
        return not hasattr(self.kernel[...], "multiply")

    def project(self, hidden: Float[Array, "*N D"]) -> Float[Array, "*N V"]:
        """Logits, float32."""
        y = _logits(hidden, self.kernel[...])
        return y if self.bias is None else y + self.bias[...]


class Embedding(nnx.Module):
    """A vector for each token id, and the projection that is tied to it.

    Args:
      vocab: number of ids, V.
      width: D.
      init: of the table (V, D).
    """

    def __init__(self, vocab: int, width: int, init: Initializer, *, rngs: nnx.Rngs) -> None:
        self.embedding = nnx.Param(init(rngs.params(), (vocab, width), jnp.float32), role="embedding")

    def __call__(self, tokens: Int[Array, "*N"] | Float[Array, "*N V"], dtype: Any) -> Float[Array, "*N D"]:
        """The tokens' vectors in the compute dtype; rows of probabilities of all ids have the mixtures of theirs."""
        if jnp.issubdtype(tokens.dtype, jnp.floating):
            return tokens.astype(dtype) @ self.embedding[...].astype(dtype)
        return self.embedding[...][tokens].astype(dtype)

    def project(self, hidden: Float[Array, "*N D"]) -> Float[Array, "*N V"]:
        """Logits of every id, float32."""
        if not known(hidden.size) or hidden.size == hidden.shape[-1]:
            # Of one token XLA:CPU would turn the whole table around in memory: the product is turned instead.
            table, flat = self.embedding[...].astype(hidden.dtype), hidden.reshape(-1, hidden.shape[-1])
            return _logits(table, flat.T).T.reshape(*hidden.shape[:-1], -1)
        return _logits(hidden, self.embedding[...].T)


def _logits(hidden: Float[Array, "*N D"], kernel: Float[Array, "D V"]) -> Float[Array, "*N V"]:
    """hidden @ kernel, multiplied in the dtype of `hidden` and summed in float32."""
    return jnp.matmul(hidden, kernel.astype(hidden.dtype), preferred_element_type=jnp.float32)


def normal(std: float | Array) -> Initializer:
    """Gaussian entries of standard deviation `std`, which may be a tracer."""
    return jax.nn.initializers.normal(std)


def uniform(bound: float | Array) -> Initializer:
    """Entries uniform in [-bound, bound], which may be a tracer."""

    def init(key: Array, shape: tuple[int, ...], dtype: Any = jnp.float32) -> Array:
        return bound * jax.random.uniform(key, shape, dtype, -1.0, 1.0)

    return init


def fan_in(gain: float | Array = 1.0) -> Initializer:
    """Gaussian entries of standard deviation gain / sqrt(inputs), for a kernel (inputs, outputs)."""

    def init(key: Array, shape: tuple[int, ...], dtype: Any = jnp.float32) -> Array:
        return gain / math.sqrt(shape[-2]) * jax.random.normal(key, shape, dtype)

    return init
