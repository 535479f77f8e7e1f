"""A variational autoencoder of texts (Kingma & Welling 2014; Bowman et al. 2016): recurrent, or of Transformers."""

from __future__ import annotations

from typing import Any, ClassVar, Literal

from flax import nnx
from jax import Array
from jaxtyping import Float, Int, Key

from lmlab.contracts import Cache, Gaussian
from lmlab.nn.latent import AttentiveReader, AttentiveWriter, RecurrentReader, RecurrentWriter, Sizes
from lmlab.nn.positions import PositionKind
from lmlab.nn.stack import Remat
from lmlab.nn.transformer import check_heads
from lmlab.ranges import Count, NonNegative, Positive, ProperFraction
from lmlab.registry import models

Kind = Literal["lstm", "gru", "elman", "transformer"]


@models.register("text_vae")
class TextVAE(nnx.Module):
    """An encoder to a Gaussian posterior and a decoder that is told z; LSTMs by default, as in He et al. 2019.

    (Section 2 of arXiv:1901.05534; Bowman et al. 2016, arXiv:1511.06349, give z to the first state only.) z is
    concatenated to every input of the decoder's first layer, and c0 = W z, h0 = tanh(c0). The encoder's posterior is
    read off its last state; nothing is shared between the two. A row is one text with one latent, whatever its segments
    are. The defaults are the sizes and the initialisation of the paper's synthetic experiment, but for `dropout`, 0.5
    there.

    Transformers are told z as in Optimus (Li et al. 2020, arXiv:2004.04092, section 3.2): W z is added to every
    embedded token, and is one more key and value of every layer; the posterior is read off the first token's state.
    Each end may be of any kind. Blocks are pre-norm with GELU, and one more norm at the end.

    The parameters lie under `encoder/` and `decoder/`, for updates that train one of them.

    Capabilities: LatentLM.

    Args:
      vocab: number of token ids, V (given by the data).
      seq_len: tokens per training row; the number of learned positions (the encoder has one more).
      dtype: compute dtype of the products; parameters, gates, states, the posterior and logits are float32.
      rngs: where initial values come from.
      encoder: what reads a text: layers of `lstm`, `gru` or `elman` cells, or a `transformer`.
      decoder: what writes it: one of the same.
      latent: Z.
      embedding: width of both embeddings; a Transformer of another width maps them to its own.
      width: hidden size D of every layer.
      layers: number of layers L of the encoder and of the decoder.
      latent_to: what of the decoder is told z: its `inputs`, its first `state` (a Transformer's keys and values before
        the first token), or `both`.
      dropout: probability of zeroing an entry of the decoder's embeddings and of its layers' outputs (a Transformer's
        attention weights and what each half block adds), in [0, 1).
      init_scale: kernels are uniform in [-init_scale, init_scale]; biases start at zero.
      embedding_scale: the same of the embeddings, and of learned positions.
      heads: H of a Transformer, a divisor of `width`.
      mlp_ratio: width inside a Transformer's feed-forward half, in multiples of D.
      positions: of a Transformer: `learned` vectors added to the embedding, which end at `seq_len`; or what does not
        end: `sinusoidal` vectors, `rotary` angles of queries and keys, `alibi`, `relative` biases as in T5, or `none`.
      scan: one compiled block run L times; False compiles L blocks. The numbers are the same. Of Transformers only.
      remat: what a Transformer's backward pass computes again: `none`, `dots` (all but the products with parameters) or
        `full`.

    Raises:
      ConfigError: a Transformer's width does not divide into its heads, or these not as rotary angles need.
    """

    OPERATIONAL: ClassVar[frozenset[str]] = frozenset({"scan", "remat"})
    TINY: ClassVar[str] = """
    text_vae.encoder = 'gru'
    text_vae.decoder = 'transformer'
    text_vae.latent = 3
    text_vae.embedding = 5
    text_vae.width = 12
    text_vae.layers = 2
    text_vae.heads = 3
    text_vae.dropout = 0.25
    """

    def __init__(
        self,
        vocab: int,
        seq_len: int,
        dtype: Any,
        rngs: nnx.Rngs,
        *,
        encoder: Kind = "lstm",
        decoder: Kind = "lstm",
        latent: Count = 2,
        embedding: Count = 50,
        width: Count = 50,
        layers: Count = 1,
        latent_to: Literal["inputs", "state", "both"] = "both",
        dropout: ProperFraction = 0.0,
        init_scale: NonNegative = 0.01,
        embedding_scale: NonNegative = 0.1,
        heads: Count = 5,
        mlp_ratio: Positive = 4.0,
        positions: PositionKind = "learned",
        scan: bool = True,
        remat: Remat = "dots",
    ) -> None:
        if "transformer" in (encoder, decoder):
            check_heads("text_vae", width, heads, None, positions)
        self.dtype = dtype
        sizes = Sizes(
            vocab, embedding, width, layers, latent, init_scale, embedding_scale, dropout, heads, mlp_ratio, positions,
            seq_len, scan, remat,
        )  # fmt: skip
        told = {"inputs": latent_to != "state", "state": latent_to != "inputs"}
        self.encoder: RecurrentReader | AttentiveReader = (
            AttentiveReader(sizes, rngs) if encoder == "transformer" else RecurrentReader(encoder, sizes, rngs)
        )
        self.decoder: RecurrentWriter | AttentiveWriter = (
            AttentiveWriter(sizes, **told, rngs=rngs)
            if decoder == "transformer"
            else RecurrentWriter(decoder, sizes, **told, rngs=rngs)
        )

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
        cache: Cache | None = None,
        keys: Key[Array, " B"] | None = None,
    ) -> tuple[Float[Array, "B T D"], Cache | None]:
        """The decoder's states after reading each token; position t depends on z and on tokens[:, :t+1] only.

        Args:
          tokens: ids.
          latent: z of each row; with a cache, the one with which its text was begun.
          segment_ids: 0 at padding, which stands behind a text and is not read.
          cache: what was read before.
          keys: one for each row; switches dropout on.
        """
        return self.decoder(tokens, latent, segment_ids, cache, keys, self.dtype)

    def project(self, hidden: Float[Array, "*N D"]) -> Float[Array, "*N V"]:
        """Next-token logits, float32."""
        return self.decoder.head.project(hidden)

    def init_cache(self, batch: int, length: int) -> Cache:
        """What has read nothing, for `batch` rows of at most `length` tokens; a recurrent one has one size for all.

        Raises:
          ConfigError: a Transformer has no learned position for that many tokens.
        """
        return self.decoder.init_cache(batch, length, self.dtype)
