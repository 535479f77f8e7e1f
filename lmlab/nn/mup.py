"""Maximal update parametrisation (muP): numbers that follow a model's width, so that wide ones learn as narrow ones do.

Yang et al. 2021, "Tensor Programs V" (arXiv:2203.03466), table 8, which suits tied embeddings; of Adam. Everything is
relative to a base model, at whose width it is the standard parametrisation. With m = width / base width:

| parameters                            | initial std | learning rate | what else                        |
|---------------------------------------|-------------|---------------|----------------------------------|
| embeddings, positions, biases, scales | 1           | 1             |                                  |
| kernels of the blocks                 | 1 / sqrt(m) | 1 / m         | scores q k / K, not q k / sqrt(K)|
| projection to the vocabulary          | 1           | 1             | logits / m                       |
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from flax import nnx
from jax import Array
from jaxtyping import Float

from lmlab.errors import ConfigError


@dataclass(frozen=True)
class Widening:
    """How many times as wide as its base a model is.

    Attributes:
      ratio: of the widths, m; 1 is the standard parametrisation.
      heads: of the widths of a head.
    """

    ratio: float = 1.0
    heads: float = 1.0

    @classmethod
    def of(
        cls, model: str, width: int, heads: int, base_width: int | None, base_heads: int | None, experts: int | None
    ) -> Widening:
        """That of a model of some width and heads; the standard parametrisation where `base_width` is None.

        Raises:
          ConfigError: a base of heads without one of width; experts, whose routers have no rule here.
        """
        if base_width is None:
            if base_heads is not None:
                raise ConfigError(f"{model}.mup_base_heads needs {model}.mup_base_width, or has no meaning.")
            return cls()
        if experts is not None:
            raise ConfigError(f"{model}.mup_base_width: muP has no rule for routers of experts here. Leave one out.")
        ratio = width / base_width
        return cls(ratio, ratio * (base_heads or heads) / heads)

    def std(self, base: float | Array) -> float | Array:
        """The initial standard deviation of a kernel of the blocks."""
        return base / math.sqrt(self.ratio)

    @property
    def query_factor(self) -> float:
        """What makes q k / sqrt(K) into q k sqrt(base K) / K."""
        return 1 / math.sqrt(self.heads)

    def mark(self, blocks: nnx.Module) -> None:
        """Tells the optimizer the rate of the blocks' kernels."""
        if self.ratio != 1.0:
            for _, param in nnx.to_flat_state(nnx.state(blocks, nnx.Param)):
                if param.get_metadata()["role"] == "kernel":
                    param.set_metadata(rate=1 / self.ratio)

    def output(self, hidden: Float[Array, "*N D"]) -> Float[Array, "*N D"]:
        """What is projected to the vocabulary."""
        return hidden if self.ratio == 1.0 else hidden * (1 / self.ratio)
