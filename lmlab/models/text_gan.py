"""A generator of texts and a discriminator beside it (Yu et al. 2017, SeqGAN; Kusner & Hernández-Lobato 2016)."""

from __future__ import annotations

from typing import Any, ClassVar, Literal

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array
from jaxtyping import Float, Int, Key

from lmlab.errors import ConfigError
from lmlab.models.gpt import GPT
from lmlab.models.lstm import LSTM
from lmlab.models.recurrent import GRU
from lmlab.nn.dropout import Dropout, Rate
from lmlab.nn.layout import by_rows
from lmlab.nn.linear import Embedding, Initializer, Linear, uniform
from lmlab.nn.recurrence import Marks
from lmlab.nn.recurrent import LAYERS
from lmlab.nn.text_convolution import Highway, TextConvolution
from lmlab.nn.transformer import check_heads
from lmlab.ranges import Count, NonNegative, ProperFraction
from lmlab.registry import models

GeneratorKind = Literal["lstm", "gru", "transformer"]
DiscriminatorKind = Literal["cnn", "lstm", "gru"]
Texts = Int[Array, "B T"] | Float[Array, "B T V"]
"""Ids, or a row of probabilities of all ids in place of each."""


class ConvolutionalJudge(nnx.Module):
    """SeqGAN's discriminator: convolutions of several widths, the maximum over time, one highway layer, a logit.

    Args:
      vocab: V.
      embedding: E.
      widths, filters: see `TextConvolution`.
      dropout: of what the highway layer gives.
      init_std: of all kernels but the embedding, which is uniform in ±1, and the highway layer's.
      rngs: where initial values come from.
    """

    def __init__(
        self, vocab: int, embedding: int, widths: tuple[int, ...], filters: tuple[int, ...], dropout: Rate,
        init_std: float | Array, rngs: nnx.Rngs,
    ) -> None:  # fmt: skip
        init = truncated(init_std)
        self.embedding = Embedding(vocab, embedding, uniform(1.0), rngs=rngs)
        self.features = TextConvolution(embedding, widths, filters, init, bias=0.1, rngs=rngs)
        self.highway = Highway(sum(filters), jax.nn.initializers.glorot_uniform(), rngs=rngs)
        self.output = Linear(sum(filters), 1, init, rngs=rngs)
        self.dropout = Dropout(dropout)

    def __call__(
        self, texts: Texts, segment_ids: Int[Array, "B T"] | None, keys: Key[Array, " B"] | None, dtype: Any
    ) -> Float[Array, " B"]:
        """The logits, float32."""
        there = jnp.ones(texts.shape[:2], bool) if segment_ids is None else segment_ids != 0
        features = self.highway(self.features(by_rows(self.embedding(texts, dtype)), there))
        return self.output.project(self.dropout(features, keys, 0))[:, 0]


class RecurrentJudge(nnx.Module):
    """One recurrent layer that reads a text and maps its last state to a logit (Kusner & Hernández-Lobato 2016).

    Args:
      cell: of the layer.
      vocab: V.
      embedding: E.
      width: D of the layer.
      dropout: of the embeddings and of the last state.
      init_scale: embeddings and kernels are uniform in ±this.
      rngs: where initial values come from.
    """

    def __init__(
        self, cell: Literal["lstm", "gru"], vocab: int, embedding: int, width: int, dropout: Rate,
        init_scale: float | Array, rngs: nnx.Rngs,
    ) -> None:  # fmt: skip
        self.embedding = Embedding(vocab, embedding, uniform(init_scale), rngs=rngs)
        self.layer = LAYERS[cell](embedding, width, init_scale, rngs)
        self.output = Linear(width, 1, uniform(init_scale), rngs=rngs)
        self.dropout = Dropout(dropout)

    def __call__(
        self, texts: Texts, segment_ids: Int[Array, "B T"] | None, keys: Key[Array, " B"] | None, dtype: Any
    ) -> Float[Array, " B"]:
        """The logits, float32."""
        x = self.dropout(self.embedding(texts, dtype), keys, 0).swapaxes(0, 1)
        zeros = self.layer.start(texts.shape[0], self.layer.width)
        _, state = self.layer(by_rows(x, axis=1), zeros, Marks.of_reading(segment_ids))
        return self.output.project(self.dropout(state.h, keys, 1))[:, 0]


@models.register("text_gan")
class TextGAN(nnx.Module):
    """A causal language model, the generator, and a discriminator of whole texts.

    As a causal model it is its generator: `autoregressive` trains that alone, and it writes and is measured as any
    other. The two share nothing and lie under `generator/` and `discriminator/`, for updates that train one of them.
    The generators are the models `lstm`, `gru` and `gpt` (pre-norm, learned positions), untied and without biases of
    the forget gate; the defaults are the sizes of SeqGAN's synthetic task (arXiv:1609.05473, section 5; the authors'
    code for what the paper leaves out).

    The discriminators are SeqGAN's convolutional one (Kim 2014, with a highway layer) and a recurrent one, which reads
    the text and judges by its last state. Where the authors have a softmax over two classes, here is one logit, the
    difference of theirs.

    Capabilities: AdversarialLM.

    Args:
      vocab: number of token ids, V (given by the data).
      seq_len: tokens per training row; the number of a transformer's positions.
      dtype: compute dtype of the products; parameters, gates and logits are float32.
      rngs: where initial values come from.
      generator: `lstm`, `gru` or `transformer`.
      discriminator: `cnn`, `lstm` or `gru`.
      width: hidden size D of the generator and width of its embedding.
      layers: number of its layers, L.
      heads: H of a transformer, a divisor of `width`.
      dropout: the generator's, in [0, 1).
      init_scale: the generator's kernels and embeddings are uniform in [-init_scale, init_scale] (Gaussian, of the
        standard deviation init_scale / sqrt(3), in a transformer, as are all of the authors' with 0.1); those of a
        recurrent discriminator are uniform, too.
      discriminator_embedding: width of its embedding, E.
      discriminator_width: D of a recurrent one.
      filter_widths: of a convolutional one, in tokens.
      filters: how many of each width.
      discriminator_dropout: in [0, 1): in front of its last product, and in a recurrent one of the embeddings, too.
      discriminator_init_std: of the truncated Gaussian that a convolutional one's kernels are drawn from.

    Raises:
      ConfigError: not as many filters as widths, or heads that do not divide the width.
    """

    LOSSES: ClassVar[tuple[str, ...]] = ("autoregressive", "adversarial")
    TINY: ClassVar[str] = """
    text_gan.width = 11
    text_gan.layers = 2
    text_gan.dropout = 0.25
    text_gan.discriminator_embedding = 5
    text_gan.discriminator_width = 7
    text_gan.filter_widths = (1, 3)
    text_gan.filters = (7, 5)
    """

    def __init__(
        self,
        vocab: int,
        seq_len: int,
        dtype: Any,
        rngs: nnx.Rngs,
        *,
        generator: GeneratorKind = "lstm",
        discriminator: DiscriminatorKind = "cnn",
        width: Count = 32,
        layers: Count = 1,
        heads: Count = 1,
        dropout: ProperFraction = 0.0,
        init_scale: NonNegative = 0.173,
        discriminator_embedding: Count = 64,
        discriminator_width: Count = 64,
        filter_widths: tuple[Count, ...] = (1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 15, 20),
        filters: tuple[Count, ...] = (100, 200, 200, 200, 200, 100, 100, 100, 100, 100, 160, 160),
        discriminator_dropout: ProperFraction = 0.25,
        discriminator_init_std: NonNegative = 0.1,
    ) -> None:
        if len(filter_widths) != len(filters) or not filters:
            raise ConfigError(
                f"text_gan.filters names {len(filters)} numbers of filters, and text_gan.filter_widths "
                f"{len(filter_widths)} widths: give as many, one at least."
            )
        self.dtype = dtype
        self.generator: LSTM | GRU | GPT
        if generator == "transformer":
            check_heads("text_gan", width, heads, None, "learned")
            self.generator = GPT(
                vocab, seq_len, dtype, rngs, width=width, layers=layers, heads=heads, dropout=dropout,
                init_std=init_scale / 3**0.5, tie_embeddings=False,
            )  # fmt: skip
        elif generator == "lstm":
            self.generator = LSTM(
                vocab, dtype, rngs, width=width, layers=layers, dropout=dropout, init_scale=init_scale, forget_bias=0.0
            )
        else:
            self.generator = GRU(vocab, dtype, rngs, width=width, layers=layers, dropout=dropout, init_scale=init_scale)
        self.discriminator: ConvolutionalJudge | RecurrentJudge
        if discriminator == "cnn":
            self.discriminator = ConvolutionalJudge(
                vocab, discriminator_embedding, filter_widths, filters, discriminator_dropout, discriminator_init_std,
                rngs,
            )  # fmt: skip
        else:
            self.discriminator = RecurrentJudge(
                discriminator, vocab, discriminator_embedding, discriminator_width, discriminator_dropout, init_scale,
                rngs,
            )  # fmt: skip

    def hidden(
        self,
        tokens: Texts,
        *,
        positions: Int[Array, "B T"] | None = None,
        segment_ids: Int[Array, "B T"] | None = None,
        cache: Any | None = None,
        keys: Key[Array, " B"] | None = None,
    ) -> tuple[Float[Array, "B T D"], Any | None]:
        """The generator's states after reading each token; position t depends on tokens[:, :t+1] only.

        Args:
          tokens: ids, or rows of probabilities.
          positions: each token's place in its document, where the generator asks for it.
          segment_ids: the document of each token.
          cache: what was read before.
          keys: one for each row; switches dropout on.
        """
        return self.generator.hidden(tokens, positions=positions, segment_ids=segment_ids, cache=cache, keys=keys)

    def project(self, hidden: Float[Array, "*N D"]) -> Float[Array, "*N V"]:
        """Next-token logits, float32."""
        return self.generator.project(hidden)

    def logits(self, tokens: Texts, **given: Any) -> Float[Array, "B T V"]:
        """Next-token logits after each token, float32; `given` as in `hidden`."""
        return self.project(self.hidden(tokens, **given)[0])

    def init_cache(self, batch: int, length: int) -> Any:
        """The generator's empty cache for `batch` rows of at most `length` tokens."""
        return self.generator.init_cache(batch, length)

    def judge(
        self,
        texts: Texts,
        *,
        segment_ids: Int[Array, "B T"] | None = None,
        keys: Key[Array, " B"] | None = None,
    ) -> Float[Array, " B"]:
        """The discriminator's logit of each text being real, float32.

        Args:
          texts: ids, or rows of probabilities.
          segment_ids: 0 at padding, which is not read.
          keys: one for each row; switches dropout on.
        """
        return self.discriminator(texts, segment_ids, keys, self.dtype)

    def judge_penalty(self) -> Float[Array, ""]:
        """Half the sum of squares of the discriminator's last kernel and bias, float32."""
        last = self.discriminator.output
        assert last.bias is not None
        return 0.5 * (jnp.sum(last.kernel[...] ** 2) + jnp.sum(last.bias[...] ** 2))


def truncated(std: float | Array) -> Initializer:
    """Gaussian entries of standard deviation `std`, which may be a tracer, none beyond 2 of these."""

    def init(key: Array, shape: tuple[int, ...], dtype: Any = jnp.float32) -> Array:
        return std * jax.random.truncated_normal(key, -2.0, 2.0, shape, dtype)

    return init
