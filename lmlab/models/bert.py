"""Encoders: BERT (Devlin et al. 2019, arXiv:1810.04805) and its common variations."""

from __future__ import annotations

from typing import Any, ClassVar

import jax.numpy as jnp
from flax import nnx
from jax import Array
from jaxtyping import Float, Int, Key

from lmlab.nn.attention import View
from lmlab.nn.blockwise import Sight
from lmlab.nn.dropout import Dropout
from lmlab.nn.experts import routing_of
from lmlab.nn.linear import Embedding, Linear, normal
from lmlab.nn.mlp import ACTIVATIONS, GATES, Activation
from lmlab.nn.norm import Norm
from lmlab.nn.positions import PositionKind, Positions
from lmlab.nn.stack import Remat
from lmlab.nn.transformer import Arrangement, Plan, check_heads, make_blocks, run_blocks, watch_blocks
from lmlab.ranges import Count, NonNegative, Positive, ProperFraction
from lmlab.registry import models


class MaskedHead(nnx.Module):
    """What makes logits of states with the embedding E: E norm(activation(transform(x))) + bias (the release's head).

    Args:
      plan: of the encoder's blocks.
      vocab: V.
      rngs: where initial values come from.
    """

    def __init__(self, plan: Plan, vocab: int, rngs: nnx.Rngs) -> None:
        self.activation = GATES.get(plan.activation, plan.activation)
        self.transform = Linear(plan.width, plan.width, plan.init, bias=plan.bias, rngs=rngs)
        self.norm = plan.make_norm()
        self.bias = nnx.Param(jnp.zeros(vocab), role="bias")

    def __call__(self, states: Float[Array, "*N D"], embedding: Embedding) -> Float[Array, "*N V"]:
        """Logits, float32."""
        return embedding.project(self.norm(ACTIVATIONS[self.activation](self.transform(states)))) + self.bias[...]


@models.register("bert")
class BERT(nnx.Module):
    """A post-norm encoder with token types, a pooler and a masked language model's head; BERT base by its defaults.

    Capabilities: BidirectionalLM, PooledEncoder.

    Args:
      vocab: number of token ids, V (given by the tokenizer).
      seq_len: tokens per training row; the number of learned positions.
      dtype: compute dtype; parameters, softmax, norms and logits are float32.
      rngs: where initial values come from.
      width: D.
      layers: number of blocks, L.
      heads: H, a divisor of `width`.
      mlp_ratio: width inside the feed-forward half, in multiples of D.
      types: token types (the texts of a pair), each a learned vector; larger ids count as the last one.
      positions: `learned` vectors added to the embedding, which end at `seq_len`; or what does not end: `sinusoidal`
        vectors, `rotary` angles of queries and keys (arXiv:2104.09864), `alibi` (arXiv:2108.12409), `relative` biases
        as in T5 (arXiv:1910.10683), or `none`.
      arrangement: `post_norm`, `pre_norm`, or `parallel` halves that read the same normalised input.
      norm: `layer` or `rms`.
      norm_epsilon: added to the variance.
      window: a token sees those nearer than so many places on both sides (local attention); None is all.
      activation: of the feed-forward half and of the head; BERT's is the exact GELU. A gated one is the gate's in the
        head.
      experts: feed-forward halves in each block, of which each token is computed by some (`nn.experts`); None is one
        for all tokens.
      experts_per_token: of these, how many compute a token.
      balance_loss: coefficient of the charge on routers that prefer some experts, summed over the blocks.
      router_z_loss: coefficient of the charge on large logits of routers.
      bias: False leaves out the biases of all products and norms, but not that of the vocabulary.
      pooler: tanh of a linear map of the first token's state; without, `pool` gives that state.
      dropout: probability of zeroing an entry of the embedding, of the attention weights and of what each half
        block adds, in [0, 1).
      init_std: standard deviation of all initial weights.
      scan: one compiled block run L times; False compiles L blocks. The numbers are the same.
      remat: what the backward pass computes again: `none`, `dots` (all but the products with parameters) or `full`.
    """

    OPERATIONAL: ClassVar[frozenset[str]] = frozenset({"scan", "remat"})
    TINY: ClassVar[str] = "bert.width = 12\nbert.heads = 3\nbert.layers = 2\nbert.dropout = 0.25\nbert.init_std = 0.3"

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
        mlp_ratio: Positive = 4.0,
        types: Count = 2,
        positions: PositionKind = "learned",
        arrangement: Arrangement = "post_norm",
        norm: Norm = "layer",
        norm_epsilon: Positive = 1e-12,
        window: Count | None = None,
        activation: Activation = "gelu_exact",
        experts: Count | None = None,
        experts_per_token: Count = 2,
        balance_loss: NonNegative = 0.01,
        router_z_loss: NonNegative = 0.0,
        bias: bool = True,
        pooler: bool = True,
        dropout: ProperFraction = 0.1,
        init_std: NonNegative = 0.02,
        scan: bool = True,
        remat: Remat = "dots",
    ) -> None:
        check_heads("bert", width, heads, None, positions)
        self.dtype, self.types, self.scan, self.remat = dtype, types, scan, remat
        init = normal(init_std)
        plan = Plan(
            width, heads, round(mlp_ratio * width), init, init, arrangement=arrangement, norm=norm,
            epsilon=norm_epsilon, activation=activation, sight=Sight(causal=False, window=window), bias=bias,
            dropout=dropout, routing=routing_of(experts, experts_per_token, balance_loss, router_z_loss, init),
        )  # fmt: skip
        self.embedding = Embedding(vocab, width, init, rngs=rngs)
        self.type_embedding = Embedding(types, width, init, rngs=rngs)
        self.positions = Positions(
            positions, init, width=width, heads=heads, head_width=width // heads, length=seq_len, causal=False,
            rngs=rngs,
        )  # fmt: skip
        self.input_norm = plan.make_norm()
        self.dropout = Dropout(dropout)
        self.blocks = make_blocks(plan, layers, rngs)
        self.norm = None if arrangement == "post_norm" else plan.make_norm()  # post-norm blocks end with their own
        self.pooler = Linear(width, width, init, bias=bias, rngs=rngs) if pooler else None
        self.head = MaskedHead(plan, vocab, rngs)

    def encode(
        self,
        tokens: Int[Array, "B T"],
        *,
        segment_ids: Int[Array, "B T"] | None = None,
        type_ids: Int[Array, "B T"] | None = None,
        keys: Key[Array, " B"] | None = None,
    ) -> Float[Array, "B T D"]:
        """States of each token in its two-sided context.

        Args:
          tokens: ids.
          segment_ids: the text of each token, which sees no other; 0 is padding. Places count from the row's start.
          type_ids: tell the texts of a pair apart; None is all 0.
          keys: one for each row; switches dropout on.

        Raises:
          ConfigError: a row is longer than there are learned positions.
        """
        batch, time = tokens.shape
        x, view = self._embed(tokens, segment_ids, type_ids, keys)
        x, _ = run_blocks(self.blocks, x, batch, view, keys=keys, scan=self.scan, remat=self.remat)
        return (x if self.norm is None else self.norm(x)).reshape(batch, time, -1)

    def attention_weights(
        self,
        tokens: Int[Array, "B T"],
        *,
        segment_ids: Int[Array, "B T"] | None = None,
        type_ids: Int[Array, "B T"] | None = None,
    ) -> Float[Array, "L B H T T"]:
        """The share that each token has in what each token reads, in every layer and head; arguments as of `encode`.

        Float32; `[..., t, s]` sums to 1 over s.
        """
        x, view = self._embed(tokens, segment_ids, type_ids, None)
        return watch_blocks(self.blocks, x, len(tokens), view, scan=self.scan).own

    def _embed(
        self,
        tokens: Int[Array, "B T"],
        segment_ids: Int[Array, "B T"] | None,
        type_ids: Int[Array, "B T"] | None,
        keys: Key[Array, " B"] | None,
    ) -> tuple[Float[Array, "B*T D"], View]:
        """What enters the first block, and what all of them are told."""
        time = tokens.shape[1]
        self.positions.require(time, "bert")
        x = self.embedding(tokens, self.dtype)
        types = jnp.zeros_like(tokens) if type_ids is None else jnp.clip(type_ids, 0, self.types - 1)
        x = self.positions.add(x + self.type_embedding(types, self.dtype), None, None)
        x = self.dropout(self.input_norm(x), keys, 0)
        turn, bias = self.positions.rotation(None, None, time), self.positions.score_bias(None, time, time)
        return x.reshape(-1, x.shape[-1]), View(segment_ids, turn, bias)

    def project(self, hidden: Float[Array, "*N D"]) -> Float[Array, "*N V"]:
        """Logits of the token at each position, float32."""
        return self.head(hidden, self.embedding)

    def pool(
        self, states: Float[Array, "B T D"], *, segment_ids: Int[Array, "B T"] | None = None
    ) -> Float[Array, "B D"]:
        """The first token's state, through the pooler; `segment_ids` is not needed for it."""
        del segment_ids
        first = states[:, 0]
        return first if self.pooler is None else jnp.tanh(self.pooler(first))
