"""What a recurrent decoder sees of its source (Bahdanau et al. 2015, arXiv:1409.0473; Luong et al. 2015)."""

from __future__ import annotations

from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array
from jaxtyping import Bool, Float

from lmlab.nn.blockwise import MASKED
from lmlab.nn.linear import Linear, uniform
from lmlab.ranges import NonNegative

Score = Literal["dot", "general", "concat"]


class Annotations(NamedTuple):
    """The source as attention sees it; rows are the first axis.

    Attributes:
      states: what is mixed.
      keys: what queries are compared with.
      there: False at padding.
    """

    states: Float[Array, "B S D"]
    keys: Float[Array, "B S D"]
    there: Bool[Array, "B S"]


class SourceAttention(nnx.Module):
    """One mixture of the source's states for every query, by scores of the query q with each state h:

      dot      q h
      general  q (h W)                              (Luong et al. 2015, arXiv:1508.04025, section 3.1)
      concat   v tanh(q W + h U)                    (both papers)

    Args:
      width: D of queries and states.
      score: how a query is compared.
      init_scale: kernels are uniform in [-init_scale, init_scale].
      rngs: where initial values come from.
    """  # fmt: skip

    def __init__(self, width: int, score: Score, init_scale: NonNegative | Array, rngs: nnx.Rngs) -> None:
        def kernel(outputs: int) -> Linear:
            return Linear(width, outputs, uniform(init_scale), bias=False, rngs=rngs)

        self.key = None if score == "dot" else kernel(width)
        self.query = kernel(width) if score == "concat" else None
        self.project_score = kernel(1) if score == "concat" else None

    def annotate(self, states: Float[Array, "B S D"], there: Bool[Array, "B S"]) -> Annotations:
        """What all queries need of the source, formed once."""
        return Annotations(states, states if self.key is None else self.key(states), there)

    def __call__(self, queries: Float[Array, "B T D"], source: Annotations) -> Float[Array, "B T D"]:
        """The context of each query: the states mixed by the softmax of its scores, in the dtype of the queries."""
        return jax.checkpoint(self._mix)(queries, source)  # scores of the concat kind are (B, T, S, D) before v

    def weights(self, queries: Float[Array, "B T D"], source: Annotations) -> Float[Array, "B T S"]:
        """The share of each of the source's states in each context, float32."""
        return jax.nn.softmax(jnp.where(source.there[:, None], self._scores(queries, source.keys), MASKED))

    def _mix(self, queries: Float[Array, "B T D"], source: Annotations) -> Float[Array, "B T D"]:
        shares = self.weights(queries, source).astype(source.states.dtype)
        mixed = jnp.einsum("bts,bsd->btd", shares, source.states, preferred_element_type=jnp.float32)
        return mixed.astype(queries.dtype)

    def _scores(self, queries: Float[Array, "B T D"], keys: Float[Array, "B S D"]) -> Float[Array, "B T S"]:
        if self.query is None or self.project_score is None:
            return jnp.einsum("btd,bsd->bts", queries, keys, preferred_element_type=jnp.float32)
        both = jnp.tanh(self.query(queries)[:, :, None] + keys[:, None])
        return self.project_score(both)[..., 0].astype(jnp.float32)
