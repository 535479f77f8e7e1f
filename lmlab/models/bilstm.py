"""Recurrent encoders that read in both directions (Schuster & Paliwal 1997; Graves & Schmidhuber 2005)."""

from __future__ import annotations

from typing import Any, ClassVar, Literal

import jax.numpy as jnp
from flax import nnx
from jax import Array
from jaxtyping import Float, Int, Key

from lmlab.errors import ConfigError
from lmlab.nn.dropout import Dropout
from lmlab.nn.layout import by_rows
from lmlab.nn.linear import Embedding, Linear, uniform
from lmlab.nn.recurrence import Marks
from lmlab.nn.recurrent import Cell, TwoWayLayer
from lmlab.nn.stack import Remat, make_stack, run_stack
from lmlab.ranges import Count, NonNegative, ProperFraction
from lmlab.registry import models


@models.register("bilstm")
class BiLSTM(nnx.Module):
    """A stack of layers of two LSTMs each (or of another cell), one for each direction, each of half the width.

    A position's state holds what the one has read up to its token and what the other has read down to it, the token
    itself included: so it serves tagging, classification and masked language models, whose question stands at the
    position as a mask, but not the prediction of a token that can be read. Each document of a packed row is read apart.

    Capabilities: BidirectionalLM, PooledEncoder.

    Args:
      vocab: number of token ids, V (given by the tokenizer).
      dtype: compute dtype of the products; parameters, gates and logits are float32.
      rngs: where initial values come from.
      cell: of all layers: `elman`, `lstm` or `gru`.
      width: D of the states and of the embedding, even; each direction has D / 2.
      layers: number of layers L.
      pooling: the vector of a row: the `max` over the states of its tokens, or their `mean` (Conneau et al. 2017,
        arXiv:1705.02364, section 3.2).
      dropout: probability of zeroing a non-recurrent connection, in [0, 1).
      tie_embeddings: project with the transposed embedding.
      init_scale: kernels and embeddings are uniform in [-init_scale, init_scale].
      scan: one compiled layer run L times; False compiles L layers. The numbers are the same.
      remat: see `lstm`.
    """

    OPERATIONAL: ClassVar[frozenset[str]] = frozenset({"scan", "remat"})
    TINY: ClassVar[str] = "bilstm.width = 10\nbilstm.layers = 2\nbilstm.dropout = 0.25"

    def __init__(
        self,
        vocab: int,
        dtype: Any,
        rngs: nnx.Rngs,
        *,
        cell: Cell = "lstm",
        width: Count = 512,
        layers: Count = 2,
        pooling: Literal["max", "mean"] = "max",
        dropout: ProperFraction = 0.0,
        tie_embeddings: bool = False,
        init_scale: NonNegative = 0.05,
        scan: bool = False,
        remat: Remat = "none",
    ) -> None:
        if width % 2:
            raise ConfigError(f"bilstm.width = {width} must be even: each direction has half of it.")
        self.dtype, self.pooling, self.scan, self.remat = dtype, pooling, scan, remat
        self.embedding = Embedding(vocab, width, uniform(init_scale), rngs=rngs)
        self.dropout = Dropout(dropout)
        self.blocks = make_stack(lambda rngs: TwoWayLayer(cell, width, width, init_scale, rngs), layers, rngs)
        self.head = None if tie_embeddings else Linear(width, vocab, uniform(init_scale), rngs=rngs)

    def encode(
        self,
        tokens: Int[Array, "B T"],
        *,
        segment_ids: Int[Array, "B T"] | None = None,
        type_ids: Int[Array, "B T"] | None = None,
        keys: Key[Array, " B"] | None = None,
    ) -> Float[Array, "B T D"]:
        """States of each token in the two-sided context of its document.

        Args:
          tokens: ids.
          segment_ids: the document of each token; 0 is padding, which no state of a token depends on.
          type_ids: not used: the separator between two texts tells them apart.
          keys: one for each row; switches dropout on.
        """
        del type_ids
        marks = Marks.of_documents(segment_ids)
        x = self._drop(self.embedding(tokens.T, self.dtype), keys, 0)

        def body(layer: TwoWayLayer, x: Array, at: tuple[Array, None]) -> tuple[Array, None]:
            states, _ = layer(by_rows(x, axis=1), marks)
            return self._drop(states, keys, 1 + at[0]), None

        x, _ = run_stack(self.blocks, body, x, scan=self.scan, remat=self.remat)
        return x.swapaxes(0, 1)

    def project(self, hidden: Float[Array, "*N D"]) -> Float[Array, "*N V"]:
        """Logits of the token at each position, float32."""
        return (self.head or self.embedding).project(hidden)

    def pool(
        self, states: Float[Array, "B T D"], *, segment_ids: Int[Array, "B T"] | None = None
    ) -> Float[Array, "B D"]:
        """The maximum or the mean over the tokens of a row, not over its padding; zero for a row without tokens."""
        if segment_ids is None:
            return states.max(1) if self.pooling == "max" else states.mean(1)
        there = (segment_ids != 0)[..., None]
        count = there.sum(1)
        if self.pooling == "mean":
            return (jnp.where(there, states, 0).sum(1) / jnp.maximum(count, 1)).astype(states.dtype)
        return jnp.where(count > 0, jnp.where(there, states, -jnp.inf).max(1), 0).astype(states.dtype)

    def _drop(self, x: Float[Array, "T B D"], keys: Key[Array, " B"] | None, site: int | Array) -> Array:
        return self.dropout(x.swapaxes(0, 1), keys, site).swapaxes(0, 1)
