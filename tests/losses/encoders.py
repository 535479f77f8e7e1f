"""Encoders small enough to compile in half a second; tests that need them by name register them for themselves."""

from __future__ import annotations

import jax.numpy as jnp
from flax import nnx

from lmlab.nn.dropout import Dropout
from lmlab.nn.linear import Embedding, Linear, normal


class Bag(nnx.Module):
    """Each token's state is its own vector, its neighbours' and the mean of its segment's.

    Args:
      vocab: number of ids, V.
      rngs: where initial values come from.
      width: D.
      dropout: probability of zeroing an entry of a vector.
    """

    def __init__(self, vocab: int, rngs: nnx.Rngs, *, width: int = 5, dropout: float = 0.25) -> None:
        self.embedding = Embedding(vocab, width, normal(0.5), rngs=rngs)
        self.near = Linear(3 * width, width, normal(0.5), rngs=rngs)
        self.head = Linear(width, vocab, normal(0.5), rngs=rngs)
        self.types = nnx.Param(normal(0.5)(rngs.params(), (2, width)), role="embedding")
        self.dropout = Dropout(dropout)

    def encode(self, tokens, *, segment_ids=None, type_ids=None, keys=None):
        segments = jnp.ones_like(tokens) if segment_ids is None else segment_ids
        kinds = jnp.zeros_like(tokens) if type_ids is None else type_ids
        x = self.embedding(tokens, jnp.float32) + self.types[...][kinds]
        x = self.dropout(x, keys, 0) * (segments > 0)[..., None]
        same = (segments[:, :, None] == segments[:, None]).astype(jnp.float32)
        x = x + (same @ x) / same.sum(-1, keepdims=True)
        padded = jnp.pad(x, ((0, 0), (1, 1), (0, 0)))
        return jnp.tanh(self.near(jnp.concatenate([padded[:, :-2], x, padded[:, 2:]], -1)))

    def project(self, hidden):
        return self.head.project(hidden)


class PooledBag(Bag):
    """The same, with a layer over the first token's state for the whole row.

    Args:
      vocab: number of ids, V.
      rngs: where initial values come from.
      width: D.
      dropout: probability of zeroing an entry of a vector.
    """

    def __init__(self, vocab: int, rngs: nnx.Rngs, *, width: int = 5, dropout: float = 0.25) -> None:
        super().__init__(vocab, rngs, width=width, dropout=dropout)
        self.pooler = Linear(width, width, normal(0.5), rngs=rngs)

    def pool(self, states, *, segment_ids=None):
        return jnp.tanh(self.pooler(states[:, 0]))
