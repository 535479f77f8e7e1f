"""Word vectors (Mikolov et al. 2013, arXiv:1301.3781 and arXiv:1310.4546)."""

from __future__ import annotations

from typing import Any, ClassVar

import jax
from flax import nnx
from jax import Array
from jaxtyping import Float, Int

from lmlab.nn.linear import Embedding, uniform
from lmlab.ranges import Count
from lmlab.registry import models


@models.register("word2vec")
class Word2Vec(nnx.Module):
    """Two tables of vectors, of words and of words as contexts, and nothing between them: the log-bilinear model.

    Both start as in the authors' code: the words' vectors uniform in ±0.5 / D, the contexts' at zero. What is told of a
    word is the product of its vector with others' context vectors; see the loss `negative_sampling`. The words' table
    is what `lmlab neighbours` and `lmlab analogy` look into.

    Capabilities: WordVectors.

    Args:
      vocab: number of token ids, V (given by the tokenizer).
      dtype: of the vectors that are given out; the tables are float32.
      rngs: where initial values come from.
      width: D; 300 in arXiv:1310.4546, 100 in the authors' code.
    """

    TINY: ClassVar[str] = "word2vec.width = 5"

    def __init__(self, vocab: int, dtype: Any, rngs: nnx.Rngs, *, width: Count = 100) -> None:
        self.dtype = dtype
        self.embedding = Embedding(vocab, width, uniform(0.5 / width), rngs=rngs)
        self.context = Embedding(vocab, width, jax.nn.initializers.zeros, rngs=rngs)

    def vectors_of(self, tokens: Int[Array, "*N"]) -> Float[Array, "*N D"]:
        """The vectors of ids as words."""
        return self.embedding(tokens, self.dtype)

    def context_vectors_of(self, tokens: Int[Array, "*N"]) -> Float[Array, "*N D"]:
        """The vectors of ids as what stands around a word."""
        return self.context(tokens, self.dtype)
