"""Recurrent language models: LSTM (Hochreiter & Schmidhuber 1997)."""

from __future__ import annotations

from typing import Any, ClassVar

import jax.numpy as jnp
from flax import nnx
from jax import Array
from jaxtyping import Bool, Float, Int, Key

from lmlab.nn.dropout import Dropout
from lmlab.nn.layout import by_rows
from lmlab.nn.linear import Embedding, Linear, uniform
from lmlab.nn.recurrence import LSTMState, Marks, lstm
from lmlab.nn.stack import Remat, make_stack, run_stack
from lmlab.ranges import Count, NonNegative, ProperFraction
from lmlab.registry import models


class Layer(nnx.Module):
    """One LSTM layer, D to D.

    Args:
      width: D.
      init_scale: kernels are uniform in [-init_scale, init_scale].
      forget_bias: initial bias of the forget gate; the others start at zero.
    """

    def __init__(self, width: int, init_scale: NonNegative | Array, forget_bias: float | Array, rngs: nnx.Rngs) -> None:
        self.input = Linear(width, 4 * width, uniform(init_scale), rngs=rngs)
        self.input.bias = nnx.Param(jnp.repeat(jnp.array([0.0, forget_bias, 0.0, 0.0]), width), role="bias")
        self.recurrent = Linear(width, 4 * width, uniform(init_scale), bias=False, rngs=rngs)

    def __call__(
        self, x: Float[Array, "T B D"], state: LSTMState, marks: Marks
    ) -> tuple[Float[Array, "T B D"], LSTMState]:
        """The layer's outputs, in the dtype of x, and its last state."""
        time, batch, width = x.shape
        inputs = self.input(x.reshape(time * batch, width)).reshape(time, batch, 4 * width)
        outputs, state = lstm(inputs, self.recurrent.kernel[...], state, marks)
        return outputs.astype(x.dtype), state


@models.register("lstm")
class LSTM(nnx.Module):
    """A stack of LSTM layers between an embedding and a softmax (Zaremba et al. 2014, arXiv:1409.2329).

    Capabilities: CausalLM.

    Args:
      vocab: number of token ids, V (given by the tokenizer).
      dtype: compute dtype of the products; parameters, gates, states and logits are float32.
      rngs: where initial values come from.
      width: hidden size D of every layer, and of the embedding.
      layers: number of layers L.
      dropout: probability of zeroing a non-recurrent connection, in [0, 1).
      tie_embeddings: project with the transposed embedding (Press & Wolf 2017, arXiv:1608.05859).
      init_scale: kernels and embeddings are uniform in [-init_scale, init_scale]; 0.1, 0.05 and 0.04 in the
        small, medium and large models of the paper.
      forget_bias: initial bias of the forget gate (Jozefowicz et al. 2015); 0 in the paper.
      scan: one compiled layer run L times; False compiles L layers. The numbers are the same.
      remat: what the backward pass computes again: `none`, `dots` (all but the matrix products outside the
        recurrence) or `full`. The recurrence itself is repeated by both.
    """

    OPERATIONAL: ClassVar[frozenset[str]] = frozenset({"scan", "remat"})
    TINY: ClassVar[str] = "lstm.width = 11\nlstm.layers = 2\nlstm.dropout = 0.25"

    def __init__(
        self,
        vocab: int,
        dtype: Any,
        rngs: nnx.Rngs,
        *,
        width: Count = 512,
        layers: Count = 2,
        dropout: ProperFraction = 0.0,
        tie_embeddings: bool = False,
        init_scale: NonNegative = 0.05,
        forget_bias: float = 1.0,
        scan: bool = False,
        remat: Remat = "none",
    ) -> None:
        self.dtype, self.width, self.layers, self.scan, self.remat = dtype, width, layers, scan, remat
        self.embedding = Embedding(vocab, width, uniform(init_scale), rngs=rngs)
        self.dropout = Dropout(dropout)
        self.blocks = make_stack(lambda rngs: Layer(width, init_scale, forget_bias, rngs), layers, rngs)
        self.head = None if tie_embeddings else Linear(width, vocab, uniform(init_scale), rngs=rngs)

    def hidden(
        self,
        tokens: Int[Array, "B T"],
        *,
        positions: Int[Array, "B T"] | None = None,
        segment_ids: Int[Array, "B T"] | None = None,
        cache: LSTMState | None = None,
        keys: Key[Array, " B"] | None = None,
    ) -> tuple[Float[Array, "B T D"], LSTMState | None]:
        """States after reading each token; position t depends on tokens[:, :t+1] only.

        Without a cache, each row starts from zero, and again at each new segment. With one, the tokens continue what
        each row has read, and `segment_ids` says which of them are there: those with 0 are not read.

        Args:
          tokens: ids.
          positions: not used: the state knows the order.
          segment_ids: the document of each token.
          cache: the state of what was read before, (L, B, D).
          keys: one for each row; switches dropout on.
        """
        del positions
        state = self.init_cache(tokens.shape[0], 0) if cache is None else cache
        marks = _marks(segment_ids, continued=cache is not None)
        x = self._drop(self.embedding(tokens.T, self.dtype), keys, 0)

        def body(layer: Layer, x: Array, at: tuple[Array, LSTMState]) -> tuple[Array, LSTMState]:
            index, state = at
            outputs, state = layer(by_rows(x, axis=1), state, marks)
            return self._drop(outputs, keys, 1 + index), state

        x, state = run_stack(self.blocks, body, x, state, scan=self.scan, remat=self.remat)
        return x.swapaxes(0, 1), None if cache is None else state

    def project(self, hidden: Float[Array, "*N D"]) -> Float[Array, "*N V"]:
        """Next-token logits, float32."""
        return (self.head or self.embedding).project(hidden)

    def logits(self, tokens: Int[Array, "B T"], **given: Any) -> Float[Array, "B T V"]:
        """Next-token logits after each token, float32; `given` as in `hidden`."""
        return self.project(self.hidden(tokens, **given)[0])

    def init_cache(self, batch: int, length: int) -> LSTMState:
        """The state before anything is read; it has the same size whatever `length` is."""
        zeros = jnp.zeros((self.layers, batch, self.width))
        return LSTMState(zeros, zeros)

    def _drop(self, x: Float[Array, "T B D"], keys: Key[Array, " B"] | None, site: int | Array) -> Array:
        return self.dropout(x.swapaxes(0, 1), keys, site).swapaxes(0, 1)


def _marks(segment_ids: Int[Array, "B T"] | None, *, continued: bool) -> Marks:
    if segment_ids is None:
        return Marks()
    segments = segment_ids.T
    if continued:
        return Marks(reads=segments != 0)
    changes: Bool[Array, "T B"] = jnp.concatenate((jnp.zeros_like(segments[:1], bool), segments[1:] != segments[:-1]))
    return Marks(starts=changes)
