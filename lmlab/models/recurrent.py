"""Recurrent language models: what they share, and those of Elman (1990) and Cho et al. (2014)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar

from flax import nnx
from jax import Array
from jaxtyping import Float, Int, Key

from lmlab.nn.activation_reg import ActivationCharges
from lmlab.nn.dropout import Dropout, LockedDropout, Rate, WordDropout, drop_connect
from lmlab.nn.layout import by_rows
from lmlab.nn.linear import Embedding, Linear, uniform
from lmlab.nn.recurrence import Marks
from lmlab.nn.recurrent import ElmanLayer, GRULayer, Layer
from lmlab.nn.stack import Remat, make_stack, run_stack
from lmlab.ranges import Count, NonNegative, ProperFraction
from lmlab.registry import models


class RecurrentLM(nnx.Module):
    """A stack of recurrent layers between an embedding and a softmax (Zaremba et al. 2014, arXiv:1409.2329).

    Capabilities: CausalLM; its recurrent kernels may be noisy (`NoisyParameters`).

    Args:
      vocab: number of token ids, V.
      dtype: compute dtype.
      rngs: where initial values come from.
      make_layer: one layer, D to D.
      width: D.
      layers: L.
      dropout: probability of zeroing a non-recurrent connection.
      tie_embeddings: project with the transposed embedding.
      init_scale: embedding and head are uniform in [-init_scale, init_scale].
      scan, remat: see `nn.stack`.
      locked_dropout: one mask of `dropout` for all steps of a row.
      embedding_dropout: probability of zeroing a word's vector wherever in a row it stands.
      weight_dropout: share of the entries of recurrent kernels that is zero in a training step.
      activation_reg, temporal_activation_reg: see `ActivationCharges`.
    """

    OPERATIONAL: ClassVar[frozenset[str]] = frozenset({"scan", "remat"})

    def __init__(
        self,
        vocab: int,
        dtype: Any,
        rngs: nnx.Rngs,
        make_layer: Callable[[nnx.Rngs], Layer],
        *,
        width: int,
        layers: int,
        dropout: Rate,
        tie_embeddings: bool,
        init_scale: float | Array,
        scan: bool,
        remat: Remat,
        locked_dropout: bool = False,
        embedding_dropout: Rate = 0.0,
        weight_dropout: Rate = 0.0,
        activation_reg: float | Array = 0.0,
        temporal_activation_reg: float | Array = 0.0,
    ) -> None:
        self.dtype, self.width, self.layers, self.scan, self.remat = dtype, width, layers, scan, remat
        self.embedding = Embedding(vocab, width, uniform(init_scale), rngs=rngs)
        self.dropout = LockedDropout(dropout) if locked_dropout else Dropout(dropout)
        self.word_dropout, self.weight_dropout = WordDropout(embedding_dropout), Dropout(weight_dropout)
        self.charges = ActivationCharges(activation_reg, temporal_activation_reg)
        self.blocks = make_stack(make_layer, layers, rngs)
        self.head = None if tie_embeddings else Linear(width, vocab, uniform(init_scale), rngs=rngs)

    def hidden(
        self,
        tokens: Int[Array, "B T"],
        *,
        positions: Int[Array, "B T"] | None = None,
        segment_ids: Int[Array, "B T"] | None = None,
        cache: Any | None = None,
        keys: Key[Array, " B"] | None = None,
    ) -> tuple[Float[Array, "B T D"], Any | None]:
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
        marks = Marks.of_documents(segment_ids) if cache is None else Marks.of_reading(segment_ids)
        x = self.embedding(tokens.swapaxes(0, 1), self.dtype)
        if not self.word_dropout.off:
            x = self.word_dropout.of_words(x.swapaxes(0, 1), tokens, keys, self.layers + 1).swapaxes(0, 1)

        def body(layer: Layer, x: Array, at: tuple[Array, Any]) -> tuple[Array, Any]:
            index, state = at
            return layer(self._drop(by_rows(x, axis=1), keys, index), state, marks)

        raw, state = run_stack(self.blocks, body, x, state, scan=self.scan, remat=self.remat)
        x = self._drop(raw, keys, self.layers)
        self.charges.report(x, raw, segment_ids)
        return x.swapaxes(0, 1), None if cache is None else state

    def project(self, hidden: Float[Array, "*N D"]) -> Float[Array, "*N V"]:
        """Next-token logits, float32."""
        return (self.head or self.embedding).project(hidden)

    def logits(self, tokens: Int[Array, "B T"], **given: Any) -> Float[Array, "B T V"]:
        """Next-token logits after each token, float32; `given` as in `hidden`."""
        return self.project(self.hidden(tokens, **given)[0])

    def init_cache(self, batch: int, length: int) -> Any:
        """The state before anything is read; it has the same size whatever `length` is."""
        return self.blocks.start(self.layers, batch, self.width)

    def with_noise(self, key: Key[Array, ""]) -> RecurrentLM:
        """The model with other recurrent kernels: DropConnect (Wan et al. 2013), one mask for all rows and steps."""
        if self.weight_dropout.off:
            return self
        model = nnx.clone(self)
        kernel = model.blocks.recurrent.kernel
        kernel[...] = drop_connect(kernel[...], self.weight_dropout.rate, key)
        return model

    def _drop(self, x: Float[Array, "T B D"], keys: Key[Array, " B"] | None, site: int | Array) -> Array:
        return self.dropout(x.swapaxes(0, 1), keys, site).swapaxes(0, 1)


@models.register("elman")
class Elman(RecurrentLM):
    """The simple recurrent network (Elman 1990, "Finding structure in time"), stacked; trained through all of time.

    h = tanh(W x + U h + b); the paper has one layer of logistic units, and trains through one step of time.

    Capabilities: CausalLM.

    Args:
      vocab: number of token ids, V (given by the tokenizer).
      dtype: compute dtype of the products; parameters, states and logits are float32.
      rngs: where initial values come from.
      width: hidden size D of every layer, and of the embedding.
      layers: number of layers L.
      dropout: probability of zeroing a non-recurrent connection, in [0, 1).
      locked_dropout: one mask for all steps of a row (variational dropout, arXiv:1512.05287); False draws one for every
        step.
      embedding_dropout: probability of zeroing a word's embedding, wherever in a row it stands, in [0, 1).
      weight_dropout: share of the entries of the recurrent kernels that is zeroed in a training step, the others being
        scaled up (DropConnect; AWD-LSTM, arXiv:1708.02182, section 2), in [0, 1).
      activation_reg: coefficient of the mean square of the last layer's dropped outputs (AWD-LSTM, section 4.4).
      temporal_activation_reg: coefficient of the mean square of their changes before dropout, from step to step.
      tie_embeddings: project with the transposed embedding (Press & Wolf 2017, arXiv:1608.05859).
      init_scale: kernels and embeddings are uniform in [-init_scale, init_scale].
      scan: one compiled layer run L times; False compiles L layers. The numbers are the same.
      remat: what the backward pass computes again: `none`, `dots` (all but the matrix products outside the
        recurrence) or `full`. The recurrence itself is repeated by both.
    """

    TINY: ClassVar[str] = "elman.width = 11\nelman.layers = 2\nelman.dropout = 0.25"

    def __init__(
        self,
        vocab: int,
        dtype: Any,
        rngs: nnx.Rngs,
        *,
        width: Count = 512,
        layers: Count = 1,
        dropout: ProperFraction = 0.0,
        locked_dropout: bool = False,
        embedding_dropout: ProperFraction = 0.0,
        weight_dropout: ProperFraction = 0.0,
        activation_reg: NonNegative = 0.0,
        temporal_activation_reg: NonNegative = 0.0,
        tie_embeddings: bool = False,
        init_scale: NonNegative = 0.05,
        scan: bool = False,
        remat: Remat = "none",
    ) -> None:
        super().__init__(
            vocab, dtype, rngs, lambda rngs: ElmanLayer(width, width, init_scale, rngs), width=width, layers=layers,
            dropout=dropout, tie_embeddings=tie_embeddings, init_scale=init_scale, scan=scan, remat=remat,
            locked_dropout=locked_dropout, embedding_dropout=embedding_dropout, weight_dropout=weight_dropout,
            activation_reg=activation_reg, temporal_activation_reg=temporal_activation_reg,
        )  # fmt: skip


@models.register("gru")
class GRU(RecurrentLM):
    """A stack of GRU layers (Cho et al. 2014, arXiv:1406.1078) between an embedding and a softmax.

    The gates are those of `nn.recurrence.gru`.

    Capabilities: CausalLM.

    Args:
      vocab: number of token ids, V (given by the tokenizer).
      dtype: compute dtype of the products; parameters, gates, states and logits are float32.
      rngs: where initial values come from.
      width: hidden size D of every layer, and of the embedding.
      layers: number of layers L.
      dropout: probability of zeroing a non-recurrent connection, in [0, 1).
      locked_dropout: one mask for all steps of a row (variational dropout, arXiv:1512.05287); False draws one for every
        step.
      embedding_dropout: probability of zeroing a word's embedding, wherever in a row it stands, in [0, 1).
      weight_dropout: share of the entries of the recurrent kernels that is zeroed in a training step, the others being
        scaled up (DropConnect; AWD-LSTM, arXiv:1708.02182, section 2), in [0, 1).
      activation_reg: coefficient of the mean square of the last layer's dropped outputs (AWD-LSTM, section 4.4).
      temporal_activation_reg: coefficient of the mean square of their changes before dropout, from step to step.
      tie_embeddings: project with the transposed embedding (Press & Wolf 2017, arXiv:1608.05859).
      init_scale: kernels and embeddings are uniform in [-init_scale, init_scale].
      scan: one compiled layer run L times; False compiles L layers. The numbers are the same.
      remat: what the backward pass computes again: `none`, `dots` (all but the matrix products outside the
        recurrence) or `full`. The recurrence itself is repeated by both.
    """

    TINY: ClassVar[str] = "gru.width = 11\ngru.layers = 2\ngru.weight_dropout = 0.25\ngru.activation_reg = 2.0"

    def __init__(
        self,
        vocab: int,
        dtype: Any,
        rngs: nnx.Rngs,
        *,
        width: Count = 512,
        layers: Count = 2,
        dropout: ProperFraction = 0.0,
        locked_dropout: bool = False,
        embedding_dropout: ProperFraction = 0.0,
        weight_dropout: ProperFraction = 0.0,
        activation_reg: NonNegative = 0.0,
        temporal_activation_reg: NonNegative = 0.0,
        tie_embeddings: bool = False,
        init_scale: NonNegative = 0.05,
        scan: bool = False,
        remat: Remat = "none",
    ) -> None:
        super().__init__(
            vocab, dtype, rngs, lambda rngs: GRULayer(width, width, init_scale, rngs), width=width, layers=layers,
            dropout=dropout, tie_embeddings=tie_embeddings, init_scale=init_scale, scan=scan, remat=remat,
            locked_dropout=locked_dropout, embedding_dropout=embedding_dropout, weight_dropout=weight_dropout,
            activation_reg=activation_reg, temporal_activation_reg=temporal_activation_reg,
        )  # fmt: skip
