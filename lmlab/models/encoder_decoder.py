"""Encoder-decoders: the first transformer (Vaswani et al. 2017), and T5 (Raffel et al. 2020)."""

from __future__ import annotations

import math
from typing import Any, ClassVar, Literal, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array
from jaxtyping import Bool, Float, Int, Key

from lmlab.errors import ConfigError
from lmlab.nn.attention import KVCache, View
from lmlab.nn.blockwise import Sight
from lmlab.nn.dropout import Dropout
from lmlab.nn.experts import routing_of
from lmlab.nn.linear import Embedding, Linear, fan_in, normal
from lmlab.nn.mlp import Activation
from lmlab.nn.norm import Norm
from lmlab.nn.positions import PositionKind, Positions
from lmlab.nn.stack import Remat, run_stack
from lmlab.nn.transformer import Block, Looks, Plan, Source, check_heads, make_blocks, run_blocks, watch_blocks
from lmlab.ranges import Count, NonNegative, Positive, ProperFraction
from lmlab.registry import models


class Memory(NamedTuple):
    """What the decoder needs to know of the source.

    Attributes:
      states: of each of its tokens.
      there: False at padding.
    """

    states: Float[Array, "B S D"]
    there: Bool[Array, "B S"]


class DecodingCache(NamedTuple):
    """What was read of the target, and every layer's keys and values of the source, which are made once.

    Attributes:
      target: of the decoder's self-attention.
      source_k, source_v: (L, B, S, H, K).
    """

    target: KVCache
    source_k: Float[Array, "L B S H K"]
    source_v: Float[Array, "L B S H K"]


@models.register("encoder_decoder")
class TransformerEncoderDecoder(nnx.Module):
    """An encoder, and a decoder that attends to its states, over one embedding; by its defaults the paper's base model.

    The paper is arXiv:1706.03762. It gives no initial values: here, kernels have a variance of 1 / inputs, and embedded
    tokens start with a variance of 1.

    Capabilities: EncoderDecoder.

    Args:
      vocab: number of token ids, V (given by the tokenizer), for source and target.
      seq_len: tokens per target; the number of learned positions of the decoder.
      source_len: tokens per source; that of the encoder.
      dtype: compute dtype; parameters, softmax, norms and logits are float32.
      rngs: where initial values come from.
      width: D.
      layers: number of the encoder's blocks, L.
      decoder_layers: number of the decoder's; None is `layers`.
      heads: H, a divisor of `width`.
      head_width: K; None is D / H, which need then not be whole.
      mlp_ratio: width inside the feed-forward half, in multiples of D.
      positions: `sinusoidal` or `learned` vectors added to the embedding, `rotary` angles of queries and keys
        (arXiv:2104.09864), `alibi` (arXiv:2108.12409), `relative` biases as in T5 (arXiv:1910.10683), or `none`.
      buckets: ranges of `relative` distances.
      max_distance: the `relative` distance beyond which all are in the last range.
      arrangement: `post_norm`, or `pre_norm` with one more norm at the end of each side.
      norm: `layer` or `rms`.
      norm_epsilon: added to the variance; None is 1e-5 of `layer` and 1e-6 of `rms`.
      activation: of the feed-forward half.
      experts: feed-forward halves in each block, of which each token is computed by some (`nn.experts`); None is one
        for all tokens.
      experts_per_token: of these, how many compute a token.
      balance_loss: coefficient of the charge on routers that prefer some experts, summed over the blocks of
        each side.
      router_z_loss: coefficient of the charge on large logits of routers.
      bias: False leaves out the biases of all products and norms.
      scale_embedding: multiply embedded tokens by sqrt(D) (section 3.4); they start smaller by as much.
      scale_scores: divide scores by sqrt(K); without, the queries' kernels start smaller by as much.
      scale_logits: divide states by sqrt(D) before the tied embedding projects them, as T5 does.
      tie_embeddings: project with the transposed embedding.
      dropout: probability of zeroing an entry of the embedding, of the attention weights and of what each part of a
        block adds, in [0, 1).
      scan: one compiled block run L times; False compiles L blocks. The numbers are the same.
      remat: what the backward pass computes again: `none`, `dots` (all but the products with parameters) or `full`.
    """

    NAME: ClassVar[str] = "encoder_decoder"
    OPERATIONAL: ClassVar[frozenset[str]] = frozenset({"scan", "remat"})
    TINY: ClassVar[str] = (
        "encoder_decoder.width = 12\nencoder_decoder.heads = 3\nencoder_decoder.layers = 2\n"
        "encoder_decoder.decoder_layers = 3"
    )

    def __init__(
        self,
        vocab: int,
        seq_len: int,
        source_len: int,
        dtype: Any,
        rngs: nnx.Rngs,
        *,
        width: Count = 512,
        layers: Count = 6,
        decoder_layers: Count | None = None,
        heads: Count = 8,
        head_width: Count | None = None,
        mlp_ratio: Positive = 4.0,
        positions: PositionKind = "sinusoidal",
        buckets: Count = 32,
        max_distance: Count = 128,
        arrangement: Literal["post_norm", "pre_norm"] = "post_norm",
        norm: Norm = "layer",
        norm_epsilon: Positive | None = None,
        activation: Activation = "relu",
        experts: Count | None = None,
        experts_per_token: Count = 2,
        balance_loss: NonNegative = 0.01,
        router_z_loss: NonNegative = 0.0,
        bias: bool = True,
        scale_embedding: bool = True,
        scale_scores: bool = True,
        scale_logits: bool = False,
        tie_embeddings: bool = True,
        dropout: ProperFraction = 0.1,
        scan: bool = True,
        remat: Remat = "dots",
    ) -> None:
        check_heads(self.NAME, heads * head_width if head_width else width, heads, None, positions)
        _check_buckets(self.NAME, positions, buckets, max_distance)
        self.dtype, self.scan, self.remat = dtype, scan, remat
        self.embedding_scale = math.sqrt(width) if scale_embedding else 1.0
        self.state_scale = 1 / math.sqrt(width) if scale_logits else 1.0
        head_width = head_width or width // heads
        self.cache_shape = (decoder_layers or layers, heads, head_width)

        routing = routing_of(experts, experts_per_token, balance_loss, router_z_loss, fan_in())

        def plan(*, decodes: bool) -> Plan:
            return Plan(
                width, heads, round(mlp_ratio * width), fan_in(), fan_in(),
                init_query=None if scale_scores else fan_in(1 / math.sqrt(head_width)), head_width=head_width,
                arrangement=arrangement, norm=norm, epsilon=norm_epsilon, activation=activation,
                sight=Sight(causal=decodes), scaled=scale_scores, bias=bias, dropout=dropout, cross=decodes,
                routing=routing,
            )  # fmt: skip

        def places(length: int, *, decodes: bool) -> Positions:
            return Positions(
                positions, normal(1 / math.sqrt(width)), width=width, heads=heads, head_width=head_width,
                length=length, causal=decodes, buckets=buckets, max_distance=max_distance, rngs=rngs,
            )  # fmt: skip

        self.embedding = Embedding(vocab, width, normal(1 / self.embedding_scale), rngs=rngs)
        self.encoder_positions = places(source_len, decodes=False)
        self.decoder_positions = places(seq_len, decodes=True)
        self.dropout = Dropout(dropout)
        self.encoder = make_blocks(plan(decodes=False), layers, rngs)
        self.decoder = make_blocks(plan(decodes=True), decoder_layers or layers, rngs)
        ends = arrangement == "pre_norm"  # post-norm blocks end with their own
        self.encoder_norm = plan(decodes=False).make_norm() if ends else None
        self.decoder_norm = plan(decodes=True).make_norm() if ends else None
        self.head = None if tie_embeddings else Linear(width, vocab, fan_in(), bias=False, rngs=rngs)

    def encode_source(
        self,
        tokens: Int[Array, "B S"],
        *,
        segment_ids: Int[Array, "B S"] | None = None,
        keys: Key[Array, " B"] | None = None,
    ) -> Memory:
        """The source's states, each in its two-sided context, and which of them are there.

        Args:
          tokens: ids.
          segment_ids: 0 is padding, which is never read.
          keys: one for each row; switches dropout on.

        Raises:
          ConfigError: the source is longer than there are learned positions.
        """
        batch, time = tokens.shape
        self.encoder_positions.require(time, self.NAME, "source_len")
        keys = _of_side(keys, 0)
        x = self._embed(self.encoder_positions, tokens, None, keys)
        view = _view(self.encoder_positions, segment_ids, time)
        x, _ = run_blocks(
            self.encoder, x, batch, view, keys=keys, scan=self.scan, remat=self.remat, stack="encoder/"
        )  # fmt: skip
        x = x if self.encoder_norm is None else self.encoder_norm(x)
        there = jnp.ones(tokens.shape, bool) if segment_ids is None else segment_ids != 0
        return Memory(x.reshape(batch, time, -1), there)

    def decode(
        self,
        tokens: Int[Array, "B T"],
        memory: Memory,
        *,
        segment_ids: Int[Array, "B T"] | None = None,
        cache: DecodingCache | None = None,
        keys: Key[Array, " B"] | None = None,
    ) -> tuple[Float[Array, "B T D"], DecodingCache | None]:
        """The decoder's states after reading each target token, and the cache if one was given.

        Args:
          tokens: ids.
          memory: from `encode_source`; all of the target sees all of it.
          segment_ids: the text of each token, 0 being padding; with a cache, 0 is what is not there, at the row's end.
          cache: what was read of the target before.
          keys: one for each row; switches dropout on.
        """
        batch, time = tokens.shape
        target = None if cache is None else cache.target
        read = None if target is None else target.length
        slots = time if target is None else target.k.shape[3]
        keys = _of_side(keys, 1)
        x = self._embed(self.decoder_positions, tokens, read, keys)
        view = _view(self.decoder_positions, segment_ids, time, read, slots)
        made = (None, None) if cache is None else (cache.source_k, cache.source_v)
        x, kept = run_blocks(
            self.decoder, x, batch, view, cache=target, source=Source(memory.states, memory.there, *made), keys=keys,
            scan=self.scan, remat=self.remat, stack="decoder/",
        )  # fmt: skip
        states = (x if self.decoder_norm is None else self.decoder_norm(x)).reshape(batch, time, -1)
        if cache is None or kept is None:
            return states, None
        fresh = time if segment_ids is None else (segment_ids != 0).sum(1, dtype=jnp.int32)
        return states, cache._replace(target=KVCache(kept[0], kept[1], cache.target.length + fresh))

    def source_attention_weights(
        self, tokens: Int[Array, "B S"], *, segment_ids: Int[Array, "B S"] | None = None
    ) -> Float[Array, "L B H S S"]:
        """The share that each token of the source has in what each of them reads, in every layer and head, float32.

        Arguments as of `encode_source`; `[..., t, s]` sums to 1 over s.
        """
        batch, time = tokens.shape
        self.encoder_positions.require(time, self.NAME, "source_len")
        x = self._embed(self.encoder_positions, tokens, None, None)
        return watch_blocks(
            self.encoder, x, batch, _view(self.encoder_positions, segment_ids, time), scan=self.scan
        ).own

    def target_attention_weights(
        self, tokens: Int[Array, "B T"], memory: Memory, *, segment_ids: Int[Array, "B T"] | None = None
    ) -> Looks:
        """The shares of the target's tokens, (L, B, H, T, T), and of the source's, (L, B, H, T, S), in what each token
        of the target reads; arguments as of `decode`."""
        batch, time = tokens.shape
        x = self._embed(self.decoder_positions, tokens, None, None)
        view, source = _view(self.decoder_positions, segment_ids, time), Source(memory.states, memory.there)
        return watch_blocks(self.decoder, x, batch, view, source=source, scan=self.scan)

    def project(self, hidden: Float[Array, "*N D"]) -> Float[Array, "*N V"]:
        """Next-token logits, float32."""
        return (self.head or self.embedding).project(hidden * jnp.asarray(self.state_scale, hidden.dtype))

    def init_decoding(self, memory: Memory, length: int) -> DecodingCache:
        """An empty cache with `length` slots, and all layers' keys and values of the source.

        Raises:
          ConfigError: there is no learned position for that many tokens.
        """
        self.decoder_positions.require(length, self.NAME)

        def read(block: Block, carry: Array, at: tuple[Array, Any]) -> tuple[Array, tuple[Array, Array]]:
            return carry, block.read(Source(memory.states))

        _, (k, v) = run_stack(self.decoder, read, jnp.zeros(()), scan=self.scan, remat="none")
        layers, heads, head_width = self.cache_shape
        batch = memory.states.shape[0]
        empty = jnp.zeros((layers, batch, heads, length, head_width), self.dtype)
        return DecodingCache(KVCache(empty, empty, jnp.zeros(batch, jnp.int32)), k, v)

    def _embed(
        self, positions: Positions, tokens: Array, read: Array | None, keys: Key[Array, " B"] | None
    ) -> Float[Array, "B*T D"]:
        x = self.embedding(tokens, self.dtype) * jnp.asarray(self.embedding_scale, self.dtype)
        x = self.dropout(positions.add(x, None, read), keys, 0)
        return x.reshape(-1, x.shape[-1])


@models.register("t5")
class T5(TransformerEncoderDecoder):
    """T5 of 60M parameters (arXiv:1910.10683): pre-norm RMSNorm, no biases, relative positions, scores not scaled.

    Dropout is as in `encoder_decoder`: not inside the feed-forward half, and not of the last states.

    Capabilities: EncoderDecoder.

    Args:
      vocab: number of token ids, V (given by the tokenizer), for source and target.
      seq_len: tokens per target.
      source_len: tokens per source.
      dtype: compute dtype; parameters, softmax, norms and logits are float32.
      rngs: where initial values come from.
      width: D.
      layers: number of the encoder's blocks, L.
      decoder_layers: number of the decoder's; None is `layers`.
      heads: H.
      head_width: K.
      mlp_ratio: width inside the feed-forward half, in multiples of D.
      buckets: ranges of relative distances.
      max_distance: the relative distance beyond which all are in the last range.
      activation: of the feed-forward half: `relu`, or `geglu` in T5 1.1.
      experts: feed-forward halves in each block, of which each token is computed by some (`nn.experts`); None is one
        for all tokens.
      experts_per_token: of these, how many compute a token; 1 in Switch Transformers, which are T5 with
        experts (arXiv:2101.03961).
      balance_loss: coefficient of the charge on routers that prefer some experts, summed over the blocks of
        each side.
      router_z_loss: coefficient of the charge on large logits of routers.
      tie_embeddings: project with the transposed embedding, of states divided by sqrt(D); False in T5 1.1.
      dropout: probability of zeroing an entry of the embedding, of the attention weights and of what each part of a
        block adds, in [0, 1).
      norm_epsilon: added to the mean square.
      scan: one compiled block run L times; False compiles L blocks. The numbers are the same.
      remat: what the backward pass computes again: `none`, `dots` (all but the products with parameters) or `full`.
    """

    NAME: ClassVar[str] = "t5"
    TINY: ClassVar[str] = (
        "t5.width = 10\nt5.heads = 3\nt5.head_width = 4\nt5.layers = 2\nt5.buckets = 6\nt5.max_distance = 5"
    )

    def __init__(
        self,
        vocab: int,
        seq_len: int,
        source_len: int,
        dtype: Any,
        rngs: nnx.Rngs,
        *,
        width: Count = 512,
        layers: Count = 6,
        decoder_layers: Count | None = None,
        heads: Count = 8,
        head_width: Count = 64,
        mlp_ratio: Positive = 4.0,
        buckets: Count = 32,
        max_distance: Count = 128,
        activation: Activation = "relu",
        experts: Count | None = None,
        experts_per_token: Count = 2,
        balance_loss: NonNegative = 0.01,
        router_z_loss: NonNegative = 0.0,
        tie_embeddings: bool = True,
        dropout: ProperFraction = 0.1,
        norm_epsilon: Positive = 1e-6,
        scan: bool = True,
        remat: Remat = "dots",
    ) -> None:
        super().__init__(
            vocab, seq_len, source_len, dtype, rngs,
            width=width, layers=layers, decoder_layers=decoder_layers, heads=heads, head_width=head_width,
            mlp_ratio=mlp_ratio, positions="relative", buckets=buckets, max_distance=max_distance,
            arrangement="pre_norm", norm="rms", norm_epsilon=norm_epsilon, activation=activation, bias=False,
            experts=experts, experts_per_token=experts_per_token, balance_loss=balance_loss,
            router_z_loss=router_z_loss, scale_embedding=False, scale_scores=False, scale_logits=tie_embeddings,
            tie_embeddings=tie_embeddings, dropout=dropout, scan=scan, remat=remat,
        )  # fmt: skip


def _view(
    positions: Positions,
    segment_ids: Int[Array, "B T"] | None,
    time: int,
    read: Int[Array, " B"] | None = None,
    slots: int | None = None,
) -> View:
    """What the blocks of a side are told of so many tokens: behind `read` ones, among `slots` (None: no more)."""
    return View(segment_ids, positions.rotation(None, read, time), positions.score_bias(read, time, slots or time))


def _of_side(keys: Key[Array, " B"] | None, side: int) -> Key[Array, " B"] | None:
    """Other keys for the encoder (0) than for the decoder (1), which have places of the same numbers."""
    return None if keys is None else jax.vmap(jax.random.fold_in, (0, None))(keys, side)


def _check_buckets(model: str, positions: str, buckets: int, max_distance: int) -> None:
    """ConfigError unless an encoder's half of the ranges can hold single distances and greater ones."""
    if positions == "relative" and (buckets < 4 or buckets % 2 or max_distance <= buckets // 2):
        raise ConfigError(
            f"{model}.buckets = {buckets}, {model}.max_distance = {max_distance}: an even number of ranges, at least "
            "4, half of which hold one distance each; max_distance must be greater than that half."
        )
