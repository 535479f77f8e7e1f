"""The neural probabilistic language model (Bengio, Ducharme, Vincent & Jauvin 2003, JMLR 3:1137-1155)."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar

import jax.numpy as jnp
from flax import nnx
from jax import Array
from jaxtyping import Float, Int, Key

from lmlab.nn.convolution import advanced, lags
from lmlab.nn.dropout import Dropout
from lmlab.nn.layout import by_rows
from lmlab.nn.linear import Embedding, Linear, normal
from lmlab.nn.reading import Reading, StackCache
from lmlab.ranges import Count, NonNegative, ProperFraction, Within
from lmlab.registry import models

Cache = StackCache
"""Its one layer is a window: the vectors of the last n - 2 tokens, which the next one is read with."""


@models.register("nplm")
class NPLM(nnx.Module):
    """A feed-forward n-gram model: the vectors of the n - 1 tokens before, side by side, a tanh layer, and a softmax.

    With x the concatenated vectors, the oldest first, logits are b + U tanh(d + H x), and W x besides where words are
    connected to the softmax directly (section 2). Where fewer than n - 1 tokens of a document or row have been read,
    zero vectors stand in their place. What is projected is the hidden layer, with x beside it where it is connected
    directly: the rows of the head's kernel are then U and W. The defaults are sizes such as the paper has on Brown.

    Capabilities: CausalLM.

    Args:
      vocab: number of token ids, V (given by the tokenizer).
      dtype: compute dtype; parameters and logits are float32.
      rngs: where initial values come from.
      order: n: a token is predicted from the n - 1 before it.
      embedding_width: of a token's vector, m.
      width: units of the hidden layer, h.
      direct: connect the vectors to the softmax, too.
      dropout: probability of zeroing an entry of x and of the hidden layer, in [0, 1); none in the paper.
      init_std: standard deviation of all initial weights; biases start at zero.
    """

    TINY: ClassVar[str] = """
    nplm.order = 4
    nplm.embedding_width = 5
    nplm.width = 11
    nplm.direct = True
    nplm.dropout = 0.25
    """

    def __init__(
        self,
        vocab: int,
        dtype: Any,
        rngs: nnx.Rngs,
        *,
        order: Annotated[int, Within(at_least=2)] = 5,
        embedding_width: Count = 30,
        width: Count = 100,
        direct: bool = False,
        dropout: ProperFraction = 0.0,
        init_std: NonNegative = 0.1,
    ) -> None:
        self.dtype, self.direct, self.context, init = dtype, direct, order - 1, normal(init_std)
        inputs = self.context * embedding_width
        self.embedding = Embedding(vocab, embedding_width, init, rngs=rngs)
        self.layer = Linear(inputs, width, init, rngs=rngs)
        self.head = Linear(width + inputs if direct else width, vocab, init, rngs=rngs)
        self.dropout = Dropout(dropout)

    def hidden(
        self,
        tokens: Int[Array, "B T"],
        *,
        positions: Int[Array, "B T"] | None = None,
        segment_ids: Int[Array, "B T"] | None = None,
        cache: Cache | None = None,
        keys: Key[Array, " B"] | None = None,
    ) -> tuple[Float[Array, "B T D"], Cache | None]:
        """The hidden layer after reading each token (with x beside it, if direct), and the cache if one was given.

        Without a cache, tokens depend on their own segment only (0 is padding). With one, the tokens continue what each
        row has read, and `segment_ids` says which of them are there: those with 0 are not read.

        Args:
          tokens: ids.
          positions: not used: each place has columns of its own.
          segment_ids: the document of each token.
          cache: the vectors of what was read before.
          keys: one for each row; switches dropout on.
        """
        reading = Reading.of(tokens, positions, segment_ids, None if cache is None else cache.length)
        vectors = by_rows(self.embedding(tokens, self.dtype))
        window = None if cache is None else cache.layers[0]
        x = self.dropout(jnp.concatenate(lags(vectors, self.context, reading, window), -1), keys, 0)
        hidden = self.dropout(jnp.tanh(self.layer(x)), keys, 1)
        if self.direct:
            hidden = jnp.concatenate((hidden, x), -1)
        if cache is None:
            return hidden, None
        return hidden, StackCache((advanced(cache.layers[0], vectors, reading),), cache.length + reading.counts)

    def project(self, hidden: Float[Array, "*N D"]) -> Float[Array, "*N V"]:
        """Next-token logits, float32."""
        return self.head.project(hidden)

    def logits(self, tokens: Int[Array, "B T"], **given: Any) -> Float[Array, "B T V"]:
        """Next-token logits after each token, float32; `given` as in `hidden`."""
        return self.project(self.hidden(tokens, **given)[0])

    def init_cache(self, batch: int, length: int) -> Cache:
        """An empty window; it has the same size whatever `length` is."""
        width = self.embedding.embedding.shape[1]
        window = jnp.zeros((batch, self.context - 1, width), self.dtype)
        return StackCache((window,), jnp.zeros(batch, jnp.int32))
