"""Recurrent encoder-decoders (Sutskever et al. 2014, arXiv:1409.3215; Cho et al. 2014), with and without attention."""

from __future__ import annotations

from typing import Any, ClassVar, Literal, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array
from jaxtyping import Float, Int, Key

from lmlab.errors import ConfigError
from lmlab.nn.dropout import Dropout
from lmlab.nn.layout import by_rows
from lmlab.nn.linear import Embedding, Linear, uniform
from lmlab.nn.recurrence import Marks
from lmlab.nn.recurrent import LAYERS, Cell, TwoWayLayer
from lmlab.nn.recurrent_attention import Annotations, Score, SourceAttention
from lmlab.nn.stack import make_stack, unstack
from lmlab.nn.transformer import Looks
from lmlab.ranges import Count, NonNegative, ProperFraction
from lmlab.registry import models


class SourceMemory(NamedTuple):
    """What the encoder hands to the decoder; rows are the first axis.

    Attributes:
      state: of every layer after the source's last token, leaves (B, L, D).
      seen: the source as attention sees it; None without attention.
    """

    state: Any
    seen: Annotations | None


class DecoderState(NamedTuple):
    """What the decoder remembers.

    Attributes:
      layers: the state of every layer, leaves (L, B, D).
      attentional: what stood before the softmax at the last step, (B, D), where it is fed to the next one; else None.
    """

    layers: Any
    attentional: Float[Array, "B D"] | None


@models.register("rnn_seq2seq")
class RNNSeq2Seq(nnx.Module):
    """A stack of recurrent layers reads the source; another one, starting from its last state, writes the target.

    With attention, what is projected is the attentional vector tanh(W [h; c]) of the decoder's output h and the context
    c, a mixture of the encoder's outputs (Luong et al. 2015, arXiv:1508.04025, equation 5). The query is

      luong_dot, luong_general, luong_concat: h itself. The attentional vector can be fed to the next step.
      bahdanau: the output before h; the context is also read by the first layer, beside the token (Bahdanau et al.
        2015, arXiv:1409.0473, section 3.1; their maxout layer is the tanh above).

    Attention that reaches the layers is computed step by step, any other for all steps at once.

    Capabilities: EncoderDecoder.

    Args:
      vocab: number of token ids, V (given by the tokenizer), of source and target alike.
      dtype: compute dtype of the products; parameters, gates, states, softmax and logits are float32.
      rngs: where initial values come from.
      cell: of all layers: `elman`, `lstm` or `gru`.
      width: D of every layer and embedding.
      layers: number of layers L of the encoder, and of the decoder.
      bidirectional: the encoder reads in both directions, each with half the width, which must be even; the decoder
        starts from both last states side by side.
      attention: `none`, `bahdanau`, `luong_dot`, `luong_general` or `luong_concat`.
      input_feeding: the first layer reads the attentional vector of the step before (Luong et al., section 3.3).
      dropout: probability of zeroing a non-recurrent connection, in [0, 1).
      tie_embeddings: project with the transposed embedding of the target.
      init_scale: kernels and embeddings are uniform in [-init_scale, init_scale]; 0.08 in Sutskever et al.
    """

    TINY: ClassVar[str] = """
    rnn_seq2seq.width = 10
    rnn_seq2seq.attention = 'luong_general'
    rnn_seq2seq.bidirectional = True
    rnn_seq2seq.dropout = 0.25
    """

    def __init__(
        self,
        vocab: int,
        dtype: Any,
        rngs: nnx.Rngs,
        *,
        cell: Cell = "lstm",
        width: Count = 256,
        layers: Count = 1,
        bidirectional: bool = False,
        attention: Literal["none", "bahdanau", "luong_dot", "luong_general", "luong_concat"] = "none",
        input_feeding: bool = False,
        dropout: ProperFraction = 0.0,
        tie_embeddings: bool = False,
        init_scale: NonNegative = 0.08,
    ) -> None:
        _check(width, bidirectional, attention, input_feeding)
        layer, init = LAYERS[cell], uniform(init_scale)
        self.dtype, self.width, self.layers = dtype, width, layers
        self.asks_before, self.input_feeding = attention == "bahdanau", input_feeding
        self.dropout = Dropout(dropout)
        self.source_embedding = Embedding(vocab, width, init, rngs=rngs)
        self.embedding = Embedding(vocab, width, init, rngs=rngs)

        def encoder_layer(rngs: nnx.Rngs) -> nnx.Module:
            return (TwoWayLayer(cell, width, width, init_scale, rngs) if bidirectional
                    else layer(width, width, init_scale, rngs))  # fmt: skip

        self.encoder = make_stack(encoder_layer, layers, rngs)
        self.decoder = make_stack(lambda rngs: layer(width, width, init_scale, rngs), layers, rngs)
        attends, fed = attention != "none", self.asks_before or input_feeding
        score: Score = "concat" if self.asks_before else attention.removeprefix("luong_")  # type: ignore[assignment]
        self.attention = SourceAttention(width, score, init_scale, rngs) if attends else None
        self.out = Linear(2 * width, width, init, bias=False, rngs=rngs) if attends else None
        self.input = Linear(width, layer.gates * width, init, bias=False, rngs=rngs) if fed else None
        self.head = None if tie_embeddings else Linear(width, vocab, init, rngs=rngs)

    def encode_source(
        self,
        tokens: Int[Array, "B S"],
        *,
        segment_ids: Int[Array, "B S"] | None = None,
        keys: Key[Array, " B"] | None = None,
    ) -> SourceMemory:
        """The encoder's states after each row's last token, and its outputs where they are attended to.

        Args:
          tokens: ids.
          segment_ids: 0 at padding, which is not read.
          keys: one for each row; switches dropout on.
        """
        marks = Marks.of_reading(segment_ids)
        x, states = self._drop(self.source_embedding(tokens.T, self.dtype), keys, 0), []
        for index, layer in enumerate(unstack(self.encoder), start=1):
            x = by_rows(x, axis=1)
            if isinstance(layer, TwoWayLayer):
                x, state = layer(x, marks)
            else:
                x, state = layer(x, layer.start(tokens.shape[0], self.width), marks)  # type: ignore[attr-defined]
            x = self._drop(x, keys, index)
            states.append(state)
        state = jax.tree.map(lambda *parts: jnp.stack(parts, 1), *states)
        if self.attention is None:
            return SourceMemory(state, None)
        there = jnp.ones(tokens.shape, bool) if segment_ids is None else segment_ids != 0
        return SourceMemory(state, self.attention.annotate(x.swapaxes(0, 1), there))

    def decode(
        self,
        tokens: Int[Array, "B T"],
        memory: SourceMemory,
        *,
        segment_ids: Int[Array, "B T"] | None = None,
        cache: DecoderState | None = None,
        keys: Key[Array, " B"] | None = None,
    ) -> tuple[Float[Array, "B T D"], DecoderState | None]:
        """The attentional vectors (without attention, the outputs) after each target token, and the cache if given.

        Args:
          tokens: ids of the target, one document to a row.
          memory: from `encode_source`.
          segment_ids: 0 where no token stands: at the end of a row, not read.
          cache: what was read before; None starts from the source's state.
          keys: one for each row; switches dropout on.
        """
        state = self.init_decoding(memory, 0) if cache is None else cache
        marks = Marks.of_reading(segment_ids)
        x = by_rows(self._drop(self.embedding(tokens.T, self.dtype), keys, self.layers + 1), axis=1)
        # What is zeroed behind each layer is drawn for all steps at once, whether these are taken together or not.
        ones = jnp.ones_like(x)
        kept = [self._drop(ones, keys, self.layers + 2 + index) for index in range(self.layers)]
        layers = unstack(self.decoder)
        shares = layers[0].shares(x)
        if self.input is None:
            state, states = self._read(layers, state, shares, kept, marks, memory.seen)
            return states.swapaxes(0, 1), None if cache is None else state

        def step(state: DecoderState, xs: Any) -> tuple[DecoderState, Array]:
            shares, kept, marks = jax.tree.map(lambda part: part[None], xs)
            state, states = self._read(layers, state, shares, kept, marks, memory.seen)
            return state, states[0]

        state, states = jax.lax.scan(step, state, (shares, kept, marks))
        return states.swapaxes(0, 1), None if cache is None else state

    def target_attention_weights(self, tokens: Int[Array, "B T"], memory: SourceMemory) -> Looks:
        """The share of each of the source's states in the context of each target token, of one layer with one head.

        Arguments as of `decode`. Of the target's own tokens there are none; of the source's without attention.
        """
        none = jnp.zeros((0, len(tokens), 1, tokens.shape[1], tokens.shape[1]))
        if self.attention is None or memory.seen is None:
            return Looks(none)

        def step(state: DecoderState, token: Array) -> tuple[DecoderState, Array]:
            _, after = self.decode(token[:, None], memory, cache=state)
            assert after is not None
            return after, (state if self.asks_before else after).layers.h[-1]

        _, queries = jax.lax.scan(step, self.init_decoding(memory, 0), tokens.T)
        found = self.attention.weights(queries.swapaxes(0, 1).astype(self.dtype), memory.seen)
        return Looks(none, found[None, :, None])

    def project(self, hidden: Float[Array, "*N D"]) -> Float[Array, "*N V"]:
        """Next-token logits, float32."""
        return (self.head or self.embedding).project(hidden)

    def init_decoding(self, memory: SourceMemory, length: int) -> DecoderState:
        """The state before any target token is read; it has the same size whatever `length` is."""
        layers = jax.tree.map(lambda part: part.swapaxes(0, 1), memory.state)
        rows = layers.h.shape[1]
        return DecoderState(layers, jnp.zeros((rows, self.width), self.dtype) if self.input_feeding else None)

    def _read(
        self,
        layers: list[Any],
        state: DecoderState,
        shares: Float[Array, "T B G"],
        kept: list[Float[Array, "T B D"]],
        marks: Marks,
        seen: Annotations | None,
    ) -> tuple[DecoderState, Float[Array, "T B D"]]:
        """Some steps through all layers and attention; one step where attention reaches the layers."""
        context = self._look(state.layers.h[-1][None].astype(self.dtype), seen) if self.asks_before else None
        fed = state.attentional if context is None else context[0]
        if self.input is not None and fed is not None:
            shares = shares + self.input(fed)
        x, after = shares, []
        for index, layer in enumerate(layers):
            own = jax.tree.map(lambda part, index=index: part[index], state.layers)
            x, new = layer.run(x if index == 0 else layer.shares(x), own, marks)
            x = x.astype(self.dtype) * kept[index]
            after.append(new)
        together = jax.tree.map(lambda *parts: jnp.stack(parts), *after)
        if self.out is not None:
            context = self._look(x, seen) if context is None else context
            x = jnp.tanh(self.out(jnp.concatenate((x, context), -1)))
        attentional = state.attentional
        if attentional is not None:
            attentional = x[-1] if marks.reads is None else jnp.where(marks.reads[-1][:, None], x[-1], attentional)
        return DecoderState(together, attentional), x

    def _look(self, queries: Float[Array, "T B D"], seen: Annotations | None) -> Float[Array, "T B D"]:
        assert self.attention is not None and seen is not None
        return self.attention(queries.swapaxes(0, 1), seen).swapaxes(0, 1)

    def _drop(self, x: Float[Array, "T B D"], keys: Key[Array, " B"] | None, site: int | Array) -> Array:
        return self.dropout(x.swapaxes(0, 1), keys, site).swapaxes(0, 1)


def _check(width: int, bidirectional: bool, attention: str, input_feeding: bool) -> None:
    if bidirectional and width % 2:
        raise ConfigError(
            f"rnn_seq2seq.width = {width} must be even: with bidirectional = True each way has half of it."
        )
    if input_feeding and not attention.startswith("luong"):
        raise ConfigError(
            f"rnn_seq2seq.input_feeding = True feeds Luong's attentional vector; attention is '{attention}'. "
            "Set rnn_seq2seq.attention = 'luong_general', or input_feeding = False."
        )
