"""Decoder-only transformers: GPT-2 (Radford et al. 2019) and its common variations."""

from __future__ import annotations

import math
from typing import Any, ClassVar

import jax.numpy as jnp
from flax import nnx
from jax import Array
from jaxtyping import Bool, Float, Int, Key

from lmlab.nn.attention import KVCache, View
from lmlab.nn.blockwise import Sight
from lmlab.nn.dropout import Dropout
from lmlab.nn.experts import routing_of
from lmlab.nn.linear import Embedding, Linear, normal
from lmlab.nn.mlp import Activation
from lmlab.nn.mup import Widening
from lmlab.nn.norm import Norm
from lmlab.nn.positions import PositionKind, Positions
from lmlab.nn.stack import Remat
from lmlab.nn.transformer import Arrangement, Plan, check_heads, make_blocks, run_blocks, watch_blocks
from lmlab.ranges import Count, NonNegative, Positive, ProperFraction
from lmlab.registry import models


@models.register("gpt")
class GPT(nnx.Module):
    """A decoder with GPT-2's defaults and initialisation: pre-norm blocks, learned positions, tied embeddings.

    Capabilities: CausalLM, PrefixLM.

    Args:
      vocab: number of token ids, V (given by the tokenizer).
      seq_len: tokens per training row; the number of learned positions.
      dtype: compute dtype; parameters, softmax, norms and logits are float32.
      rngs: where initial values come from.
      width: D; 768 in GPT-2.
      layers: number of blocks, L.
      heads: H, a divisor of `width`.
      kv_heads: heads of keys and values, a divisor of `heads` (grouped queries, arXiv:2305.13245); None is `heads`.
      mlp_ratio: width inside the feed-forward half, in multiples of D.
      positions: `learned` vectors added to the embedding, which end at `seq_len`; or what does not end: `sinusoidal`
        vectors, `rotary` angles of queries and keys (arXiv:2104.09864), `alibi` (arXiv:2108.12409), `relative` biases
        as in T5 (arXiv:1910.10683), or `none`.
      rotary_base: of the wavelengths of rotary angles.
      arrangement: `pre_norm`, `post_norm`, or `parallel` halves that read the same normalised input.
      norm: `layer` or `rms`.
      norm_epsilon: added to the variance; None is 1e-5 of `layer` and 1e-6 of `rms`.
      qk_norm: normalise queries and keys by their root mean square (arXiv:2302.05442).
      window: tokens that a token sees, itself included (local attention); None is all.
      activation: of the feed-forward half; `swiglu`, `geglu` and `reglu` have a gate.
      experts: feed-forward halves in each block, of which each token is computed by some (`nn.experts`); None is one
        for all tokens.
      experts_per_token: of these, how many compute a token.
      balance_loss: coefficient of the charge on routers that prefer some experts, summed over the blocks; 0.01 in
        Switch Transformers (arXiv:2101.03961, section 2.2).
      router_z_loss: coefficient of the charge on large logits of routers; 0.001 in ST-MoE (arXiv:2202.08906).
      bias: False leaves out the biases of all products and norms.
      tie_embeddings: project with the transposed embedding.
      dropout: probability of zeroing an entry of the embedding, of the attention weights and of what each half
        block adds, in [0, 1).
      init_std: standard deviation of initial weights; that of products which write into the residual stream is
        divided by sqrt(2 L) (GPT-2, section 2.3).
      embedding_std: standard deviation of the initial embedding; None is `init_std`. Sinusoidal positions, whose
        entries are between -1 and 1, drown a small one.
      mup_base_width: width of the model whose learning rate and initial weights are to serve this one, too: muP
        (`nn.mup`), for optimizers that know of it (`adamw`); None is the standard parametrisation.
      mup_base_heads: heads of that model; None is as many as this one has, so that heads grow with the width.
      scan: one compiled block run L times; False compiles L blocks. The numbers are the same.
      remat: what the backward pass computes again: `none`, `dots` (all but the products with parameters) or `full`.
    """

    OPERATIONAL: ClassVar[frozenset[str]] = frozenset({"scan", "remat"})
    TINY: ClassVar[str] = "gpt.width = 12\ngpt.heads = 3\ngpt.layers = 2\ngpt.dropout = 0.25"

    def __init__(
        self,
        vocab: int,
        seq_len: int,
        dtype: Any,
        rngs: nnx.Rngs,
        *,
        width: Count = 768,
        layers: Count = 12,
        heads: Count = 12,
        kv_heads: Count | None = None,
        mlp_ratio: Positive = 4.0,
        positions: PositionKind = "learned",
        rotary_base: Positive = 10_000.0,
        arrangement: Arrangement = "pre_norm",
        norm: Norm = "layer",
        norm_epsilon: Positive | None = None,
        qk_norm: bool = False,
        window: Count | None = None,
        activation: Activation = "gelu",
        experts: Count | None = None,
        experts_per_token: Count = 2,
        balance_loss: NonNegative = 0.01,
        router_z_loss: NonNegative = 0.0,
        bias: bool = True,
        tie_embeddings: bool = True,
        dropout: ProperFraction = 0.0,
        init_std: NonNegative = 0.02,
        embedding_std: NonNegative | None = None,
        mup_base_width: Count | None = None,
        mup_base_heads: Count | None = None,
        scan: bool = True,
        remat: Remat = "dots",
    ) -> None:
        check_heads(self._name, width, heads, kv_heads, positions)
        self.seq_len, self.dtype = seq_len, dtype
        self.layers, self.kv_heads, self.head_width = layers, kv_heads or heads, width // heads
        self.scan, self.remat = scan, remat
        routing = routing_of(experts, experts_per_token, balance_loss, router_z_loss, normal(init_std))
        self.widening = Widening.of(self._name, width, heads, mup_base_width, mup_base_heads, experts)
        std = self.widening.std(init_std)
        plan = Plan(
            width, heads, round(mlp_ratio * width), normal(std), normal(std / math.sqrt(2 * layers)),
            kv_heads=kv_heads, arrangement=arrangement, norm=norm, epsilon=norm_epsilon, activation=activation,
            sight=Sight(window=window), qk_norm=qk_norm, bias=bias, dropout=dropout, routing=routing,
            query_factor=self.widening.query_factor,
        )  # fmt: skip
        std = init_std if embedding_std is None else embedding_std
        self.embedding = Embedding(vocab, width, normal(std), rngs=rngs)
        self.positions = Positions(
            positions, normal(init_std), width=width, heads=heads, head_width=width // heads, length=seq_len,
            base=rotary_base, rngs=rngs,
        )  # fmt: skip
        self.dropout = Dropout(dropout)
        self.blocks = make_blocks(plan, layers, rngs)
        self.widening.mark(self.blocks)
        self.norm = None if arrangement == "post_norm" else plan.make_norm()  # post-norm blocks end with their own
        self.head = None if tie_embeddings else Linear(width, vocab, normal(init_std), bias=False, rngs=rngs)

    def hidden(
        self,
        tokens: Int[Array, "B T"],
        *,
        positions: Int[Array, "B T"] | None = None,
        segment_ids: Int[Array, "B T"] | None = None,
        cache: KVCache | None = None,
        keys: Key[Array, " B"] | None = None,
        prefix: Bool[Array, "B T"] | None = None,
    ) -> tuple[Float[Array, "B T D"], KVCache | None]:
        """States after reading each token, normalised, and the cache if one was given.

        Without a cache, tokens see their own segment only (0 is padding). With one, the tokens continue what each
        row has read, and `segment_ids` says which of them are there: those with 0 must stand at the end of their
        row, are not read, and their states mean nothing.

        Args:
          tokens: ids.
          positions: each token's place in its document (by default, counted on from the start or the cache).
          segment_ids: the document of each token.
          cache: what was read before.
          keys: one for each row; switches dropout on.
          prefix: tokens that all tokens of their segment see, those before them, too (Liu et al. 2018,
            arXiv:1801.10198; Dong et al. 2019, arXiv:1905.03197). With a cache, read all of it at once.
        """
        batch, time = tokens.shape[:2]
        read = None if cache is None else cache.length
        slots = time if cache is None else cache.k.shape[3]
        x = self.dropout(self.positions.add(self.embedding(tokens, self.dtype), positions, read), keys, 0)
        turn, bias = self.positions.rotation(positions, read, time), self.positions.score_bias(read, time, slots)
        x, kept = run_blocks(
            self.blocks, x.reshape(-1, x.shape[-1]), batch, View(segment_ids, turn, bias, prefix),
            cache=cache, keys=keys, scan=self.scan, remat=self.remat,
        )  # fmt: skip
        states = (x if self.norm is None else self.norm(x)).reshape(batch, time, -1)
        if cache is None or kept is None:
            return states, None
        fresh = time if segment_ids is None else (segment_ids != 0).sum(1, dtype=jnp.int32)
        return states, KVCache(kept[0], kept[1], cache.length + fresh)

    def hidden_with_prefix(
        self, tokens: Int[Array, "B T"], prefix: Bool[Array, "B T"], **given: Any
    ) -> tuple[Float[Array, "B T D"], KVCache | None]:
        """As `hidden`, of tokens of which some are seen by all of their segment; `given` as there."""
        return self.hidden(tokens, prefix=prefix, **given)

    def attention_weights(
        self,
        tokens: Int[Array, "B T"],
        *,
        positions: Int[Array, "B T"] | None = None,
        segment_ids: Int[Array, "B T"] | None = None,
        prefix: Bool[Array, "B T"] | None = None,
    ) -> Float[Array, "L B H T T"]:
        """The share that each token has in what each token reads, in every layer and head; arguments as of `hidden`.

        Float32; `[..., t, s]` sums to 1 over s.
        """
        batch, time = tokens.shape
        x = self.positions.add(self.embedding(tokens, self.dtype), positions, None)
        turn, bias = self.positions.rotation(positions, None, time), self.positions.score_bias(None, time, time)
        view = View(segment_ids, turn, bias, prefix)
        return watch_blocks(self.blocks, x.reshape(-1, x.shape[-1]), batch, view, scan=self.scan).own

    def project(self, hidden: Float[Array, "*N D"]) -> Float[Array, "*N V"]:
        """Next-token logits, float32."""
        return (self.head or self.embedding).project(self.widening.output(hidden))

    def logits(self, tokens: Int[Array, "B T"], **given: Any) -> Float[Array, "B T V"]:
        """Next-token logits after each token, float32; `given` as in `hidden`."""
        return self.project(self.hidden(tokens, **given)[0])

    def init_cache(self, batch: int, length: int) -> KVCache:
        """An empty cache with `length` slots for each of `batch` rows.

        Raises:
          ConfigError: there is no learned position for that many tokens.
        """
        self.positions.require(length, self._name)
        shape = (self.layers, batch, self.kv_heads, length, self.head_width)
        return KVCache(jnp.zeros(shape, self.dtype), jnp.zeros(shape, self.dtype), jnp.zeros(batch, jnp.int32))

    @property
    def _name(self) -> str:
        """Its name in a configuration."""
        return type(self).__name__.lower()
