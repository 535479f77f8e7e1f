"""A plug-in as its author would write it: a model, a loss and a dataset in one file outside of lmlab."""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array

from lmlab.contracts import CausalLM, LossOutput, Text, TokenBatch
from lmlab.errors import DataError
from lmlab.registry import datasets, losses, models


@models.register("example_bigram")
class Bigram(nnx.Module):
    """The next token from the last one alone, by a table of low rank.

    Capabilities: CausalLM.

    Args:
      vocab: number of token ids, V (given by the tokenizer).
      dtype: compute dtype.
      rngs: where initial values come from.
      rank: width between the two factors of the table.
    """

    TINY: ClassVar[str] = "example_bigram.rank = 5"

    def __init__(self, vocab: int, dtype: Any, rngs: nnx.Rngs, *, rank: int = 64) -> None:
        draw = nnx.initializers.normal(0.1)
        self.dtype = dtype
        self.embedding = nnx.Param(draw(rngs.params(), (vocab, rank)), role="embedding")
        self.head = nnx.Param(draw(rngs.params(), (rank, vocab)), role="kernel")

    def hidden(
        self,
        tokens: Array,
        *,
        positions: Array | None = None,
        segment_ids: Array | None = None,
        cache: Any = None,
        keys: Array | None = None,
    ) -> tuple[Array, Any]:
        """The embedding of each token; nothing else is remembered."""
        return self.embedding[...].astype(self.dtype)[tokens], cache

    def project(self, hidden: Array) -> Array:
        """Next-token logits, float32."""
        return hidden.astype(jnp.float32) @ self.head[...]

    def init_cache(self, batch: int, length: int) -> Any:
        """Nothing."""
        return ()


@losses.register("example_focal")
@dataclass(frozen=True)
class Focal:
    """Next-token cross-entropy in which sure predictions count less (Lin et al. 2017, arXiv:1708.02002).

    Needs: CausalLM.

    Args:
      gamma: exponent of 1 - p; 0 is cross-entropy.
    """

    needs: ClassVar[type] = CausalLM
    reads: ClassVar[type] = TokenBatch

    gamma: float = 2.0

    def __call__(self, model: CausalLM, batch: Mapping[str, Array], keys: Array | None, step: Array) -> LossOutput:
        """Sums over the batch."""
        hidden, _ = model.hidden(
            batch["tokens"], positions=batch.get("positions"), segment_ids=batch.get("segment_ids"), keys=keys
        )
        logp = jax.nn.log_softmax(model.project(hidden))
        nats = -jnp.take_along_axis(logp, batch["targets"][..., None], axis=-1)[..., 0]
        weights, weight = batch["weights"], batch["weights"].sum()
        focal = (1 - jnp.exp(-nats)) ** self.gamma * nats
        return LossOutput((focal * weights).sum(), weight, {"nats": ((nats * weights).sum(), weight)})


@datasets.register("example_sums")
@dataclass(frozen=True)
class Sums:
    """Additions of small numbers, one a document: `17+5=22`.

    Args:
      largest: of the two numbers.
    """

    example: ClassVar[type] = Text
    TINY: ClassVar[str] = "example_sums.largest = 19"

    largest: int = 99

    def split(self, name: str) -> tuple[Text, ...]:
        """The sums whose number falls to a split: every tenth to valid, the one after it to test."""
        if name not in self._splits:
            raise DataError(f"example_sums: no split '{name}'; there are train, valid and test.")
        return self._splits[name]

    def fingerprint(self) -> dict[str, Any]:
        """Their text."""
        text = "\n".join(example.text for split in self._splits.values() for example in split)
        return {"sha256": hashlib.sha256(text.encode()).hexdigest()}

    @functools.cached_property
    def _splits(self) -> dict[str, tuple[Text, ...]]:
        numbers = range(self.largest + 1)
        sums = [Text(f"{a}+{b}={a + b}", f"{a}+{b}") for a in numbers for b in numbers]
        chosen = {"train": range(2, 10), "valid": (0,), "test": (1,)}
        return {name: tuple(x for i, x in enumerate(sums) if i % 10 in rest) for name, rest in chosen.items()}
