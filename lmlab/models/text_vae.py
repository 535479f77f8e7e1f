"""A variational autoencoder of texts (Kingma & Welling 2014; Bowman et al. 2016), with LSTMs at both ends."""

from __future__ import annotations

from typing import Any, ClassVar, Literal, NamedTuple

import jax.numpy as jnp
from flax import nnx
from jax import Array
from jaxtyping import Float, Int, Key

from lmlab.contracts import Gaussian
from lmlab.nn.dropout import Dropout, Rate
from lmlab.nn.layout import by_rows
from lmlab.nn.linear import Embedding, Linear, uniform
from lmlab.nn.recurrence import LSTMState, Marks
from lmlab.nn.recurrent import LSTMLayer
from lmlab.ranges import Count, NonNegative, ProperFraction
from lmlab.registry import models

Bound = float | Array


class Reading(NamedTuple):
    """What the decoder remembers: its layers' states, (L, B, D), and how many tokens each row has read."""

    state: LSTMState
    length: Int[Array, " B"]


class Encoder(nnx.Module):
    """q(z | text): the last state of a stack of LSTM layers, mapped to a mean and a log-variance.

    Args: those of `TextVAE`.
    """

    def __init__(
        self, vocab: int, embedding: int, width: int, layers: int, latent: int,
        *, init_scale: Bound, embedding_scale: Bound, rngs: nnx.Rngs,
    ) -> None:  # fmt: skip
        self.embedding = Embedding(vocab, embedding, uniform(embedding_scale), rngs=rngs)
        widths = [embedding] + [width] * (layers - 1)
        self.blocks = nnx.List([LSTMLayer(each, width, init_scale, rngs, forget_bias=0.0) for each in widths])
        self.posterior = Linear(width, 2 * latent, uniform(init_scale), bias=False, rngs=rngs)
        self.width = width

    def __call__(self, tokens: Int[Array, "B T"], segment_ids: Int[Array, "B T"] | None, dtype: Any) -> Gaussian:
        """The posterior of each row, float32."""
        x, marks = self.embedding(tokens.T, dtype), Marks.of_reading(segment_ids)
        state = LSTMLayer.start(tokens.shape[0], self.width)
        for layer in self.blocks:
            x, state = layer(by_rows(x, axis=1), LSTMLayer.start(tokens.shape[0], self.width), marks)
        mean, log_variance = jnp.split(self.posterior(state.h), 2, -1)
        return Gaussian(mean, log_variance)


class Decoder(nnx.Module):
    """p(text | z): a stack of LSTM layers between an embedding and a softmax, told z as `TextVAE.latent_to` says.

    Args: those of `TextVAE`.
    """

    def __init__(
        self, vocab: int, embedding: int, width: int, layers: int, latent: int,
        *, inputs: bool, state: bool, dropout: Rate, init_scale: Bound, embedding_scale: Bound, rngs: nnx.Rngs,
    ) -> None:  # fmt: skip
        self.embedding = Embedding(vocab, embedding, uniform(embedding_scale), rngs=rngs)
        self.first = Linear(latent, layers * width, uniform(init_scale), bias=False, rngs=rngs) if state else None
        widths = [embedding] + [width] * (layers - 1)
        self.blocks = nnx.List([LSTMLayer(each, width, init_scale, rngs, forget_bias=0.0) for each in widths])
        self.latent = Linear(latent, 4 * width, uniform(init_scale), bias=False, rngs=rngs) if inputs else None
        self.head = Linear(width, vocab, uniform(init_scale), bias=False, rngs=rngs)
        self.dropout = Dropout(dropout)
        self.width, self.layers = width, layers

    def __call__(
        self,
        tokens: Int[Array, "B T"],
        latent: Float[Array, "B Z"],
        segment_ids: Int[Array, "B T"] | None,
        cache: Reading | None,
        keys: Key[Array, " B"] | None,
        dtype: Any,
    ) -> tuple[Float[Array, "B T D"], LSTMState]:
        """States after each token, and the layers' last states."""
        x, marks = self.dropout(self.embedding(tokens, dtype), keys, 0).swapaxes(0, 1), Marks.of_reading(segment_ids)
        # The first layer reads [x; z]: of the product with it, the share of z is the same at all steps.
        also = None if self.latent is None else self.latent(latent.astype(dtype))[None]
        states, ends = self._begin(latent, cache), []
        for depth, layer in enumerate(self.blocks):
            own = LSTMState(states.h[depth], states.c[depth])
            x, end = layer(by_rows(x, axis=1), own, marks, also=None if depth else also)
            x = self.dropout(x.swapaxes(0, 1), keys, 1 + depth).swapaxes(0, 1)
            ends.append(end)
        return x.swapaxes(0, 1), LSTMState(*(jnp.stack(parts) for parts in zip(*ends, strict=True)))

    def _begin(self, latent: Float[Array, "B Z"], cache: Reading | None) -> LSTMState:
        """The states to go on from, (L, B, D): those of z where a row has read nothing."""
        if self.first is None:
            zeros = jnp.zeros((self.layers, len(latent), self.width))
            fresh = LSTMState(zeros, zeros)
        else:
            cells = self.first(latent.astype(jnp.float32)).reshape(-1, self.layers, self.width).swapaxes(0, 1)
            fresh = LSTMState(jnp.tanh(cells), cells)
        if cache is None:
            return fresh
        begun = (cache.length > 0)[:, None]
        return LSTMState(*(jnp.where(begun, old, new) for old, new in zip(cache.state, fresh, strict=True)))


@models.register("text_vae")
class TextVAE(nnx.Module):
    """An LSTM encoder to a Gaussian posterior and an LSTM decoder that is told z, as in He et al. 2019, section 2.

    (arXiv:1901.05534; Bowman et al. 2016, arXiv:1511.06349, give z to the first state only.) z is concatenated to
    every input of the decoder's first layer, and c0 = W z, h0 = tanh(c0). The encoder's posterior is read off its last
    state; nothing is shared between the two. A row is one text with one latent, whatever its segments are. The defaults
    are the sizes and the initialisation of the paper's synthetic experiment, but for `dropout`, 0.5 there.

    The parameters lie under `encoder/` and `decoder/`, for updates that train one of them.

    Capabilities: LatentLM.

    Args:
      vocab: number of token ids, V (given by the data).
      dtype: compute dtype of the products; parameters, gates, states, the posterior and logits are float32.
      rngs: where initial values come from.
      latent: Z.
      embedding: width of both embeddings.
      width: hidden size D of every layer.
      layers: number of layers L of the encoder and of the decoder.
      latent_to: what of the decoder is told z: its `inputs`, its first `state`, or `both`.
      dropout: probability of zeroing an entry of the decoder's embeddings and of its layers' outputs, in [0, 1).
      init_scale: kernels are uniform in [-init_scale, init_scale]; biases start at zero.
      embedding_scale: the same of the embeddings.
    """

    TINY: ClassVar[str] = """
    text_vae.latent = 3
    text_vae.embedding = 5
    text_vae.width = 11
    text_vae.layers = 2
    text_vae.dropout = 0.25
    """

    def __init__(
        self,
        vocab: int,
        dtype: Any,
        rngs: nnx.Rngs,
        *,
        latent: Count = 2,
        embedding: Count = 50,
        width: Count = 50,
        layers: Count = 1,
        latent_to: Literal["inputs", "state", "both"] = "both",
        dropout: ProperFraction = 0.0,
        init_scale: NonNegative = 0.01,
        embedding_scale: NonNegative = 0.1,
    ) -> None:
        self.dtype, self.width, self.layers = dtype, width, layers
        self.encoder = Encoder(
            vocab, embedding, width, layers, latent, init_scale=init_scale, embedding_scale=embedding_scale, rngs=rngs
        )
        self.decoder = Decoder(
            vocab, embedding, width, layers, latent, inputs=latent_to != "state", state=latent_to != "inputs",
            dropout=dropout, init_scale=init_scale, embedding_scale=embedding_scale, rngs=rngs,
        )  # fmt: skip

    def posterior(
        self,
        tokens: Int[Array, "B T"],
        *,
        segment_ids: Int[Array, "B T"] | None = None,
        keys: Key[Array, " B"] | None = None,
    ) -> Gaussian:
        """q(z | text), float32; `keys` are not used: the encoder drops nothing. Padding (segment 0) is not read."""
        del keys
        return self.encoder(tokens, segment_ids, self.dtype)

    def hidden_given(
        self,
        tokens: Int[Array, "B T"],
        latent: Float[Array, "B Z"],
        *,
        segment_ids: Int[Array, "B T"] | None = None,
        cache: Reading | None = None,
        keys: Key[Array, " B"] | None = None,
    ) -> tuple[Float[Array, "B T D"], Reading | None]:
        """The decoder's states after reading each token; position t depends on z and on tokens[:, :t+1] only.

        Args:
          tokens: ids.
          latent: z of each row; with a cache, the one with which its text was begun.
          segment_ids: 0 at padding, which is not read.
          cache: what was read before.
          keys: one for each row; switches dropout on.
        """
        states, last = self.decoder(tokens, latent, segment_ids, cache, keys, self.dtype)
        if cache is None:
            return states, None
        read = tokens.shape[1] if segment_ids is None else (segment_ids != 0).sum(1, dtype=jnp.int32)
        return states, Reading(last, cache.length + read)

    def project(self, hidden: Float[Array, "*N D"]) -> Float[Array, "*N V"]:
        """Next-token logits, float32."""
        return self.decoder.head.project(hidden)

    def init_cache(self, batch: int, length: int) -> Reading:
        """The state before anything is read; it has the same size whatever `length` is."""
        zeros = jnp.zeros((self.layers, batch, self.width))
        return Reading(LSTMState(zeros, zeros), jnp.zeros(batch, jnp.int32))
