"""What stands over the states of any encoder or decoder for a task: one vector for a row, and scores of classes."""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp
from flax import nnx
from jax import Array
from jaxtyping import Float, Int, Key

from lmlab.contracts import PooledEncoder, TokenEncoder
from lmlab.nn.crf import LinearChainCRF
from lmlab.nn.dropout import Dropout, Rate
from lmlab.nn.linear import Linear, normal
from lmlab.nn.randomness import keys_for

STD = 0.02
"""Of the initial weights, as in BERT's and GPT's own layers."""


def pooled(model: Any, states: Float[Array, "B T D"], segment_ids: Int[Array, "B T"]) -> Float[Array, "B D"]:
    """One vector for each row: a `PooledEncoder`'s own, another encoder's mean, a causal model's last state.

    The last state is the only one of a causal model that has read the whole row (Radford et al. 2018, section 3.2).
    Rows without a token have some finite vector.
    """
    if isinstance(model, PooledEncoder):
        return model.pool(states, segment_ids=segment_ids)
    if isinstance(model, TokenEncoder):
        return mean_state(states, segment_ids)
    there = segment_ids > 0
    last = there.shape[1] - 1 - jnp.argmax(there[:, ::-1], axis=1)
    return jnp.take_along_axis(states, last[:, None, None], axis=1)[:, 0]


def mean_state(states: Float[Array, "B T D"], segment_ids: Int[Array, "B T"]) -> Float[Array, "B D"]:
    """The mean of each row's states, summed in float32; zero for rows without a token."""
    there = segment_ids > 0
    total = jnp.where(there[..., None], states, 0).astype(jnp.float32).sum(1)
    return (total / jnp.maximum(there.sum(1, keepdims=True), 1)).astype(states.dtype)


class Classifier(nnx.Module):
    """Dropout and a linear layer (Devlin et al. 2019, section 4.1).

    Args:
      width: of the vectors, D.
      classes: C.
      dropout: probability of zeroing an entry of a vector.
    """

    def __init__(self, width: int, classes: int, dropout: Rate = 0.0, *, rngs: nnx.Rngs) -> None:
        self.logits = Linear(width, classes, normal(STD), rngs=rngs)
        self.dropout = Dropout(dropout)

    def __call__(self, x: Float[Array, "B *N D"], keys: Key[Array, " B"] | None = None) -> Float[Array, "B *N C"]:
        """Scores of the classes, float32; `keys` switches dropout on."""
        keys = None if keys is None else keys_for(keys, "head")
        x = self.dropout(x, keys, 0)
        return self.logits.project(x.reshape(-1, x.shape[-1])).reshape(*x.shape[:-1], -1)


class Tagger(nnx.Module):
    """Scores of tags for every token, with their transitions if asked, and of labels for the whole row.

    Args:
      width: of the states, D.
      tags: number of tags.
      labels: number of labels of whole rows; 0 where there are none.
      crf: whether neighbouring tags have scores too.
      dropout: probability of zeroing an entry of a state.
    """

    def __init__(self, width: int, tags: int, labels: int, crf: bool, dropout: Rate = 0.0, *, rngs: nnx.Rngs) -> None:
        self.tags = Classifier(width, tags, dropout, rngs=rngs)
        self.labels = Classifier(width, labels, dropout, rngs=rngs) if labels else None
        self.chain = LinearChainCRF(tags) if crf else None
