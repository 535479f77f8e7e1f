"""The block that all transformers here are made of (Vaswani et al. 2017, arXiv:1706.03762), and a stack of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import jax
from flax import nnx
from jax import Array
from jaxtyping import Bool, Float, Key

from lmlab.errors import ConfigError
from lmlab.nn.attention import Attention, CrossAttention, KVCache, View
from lmlab.nn.blockwise import CAUSAL, Sight
from lmlab.nn.dropout import Dropout, Rate
from lmlab.nn.experts import Experts, Routing, Sums, report_routing
from lmlab.nn.layout import by_rows
from lmlab.nn.linear import Initializer
from lmlab.nn.mlp import MLP, Activation
from lmlab.nn.norm import LayerNorm, Norm, RMSNorm, make_norm
from lmlab.nn.stack import Remat, is_layers, joined, make_stack, run_stack

Arrangement = Literal["pre_norm", "post_norm", "parallel"]
"""x + f(norm(x)) for each half; norm(x + f(x)), as in the paper; or x + attention(norm(x)) + mlp(norm(x)) with one
norm (PaLM, arXiv:2204.02311, section 2)."""


@dataclass(frozen=True)
class Plan:
    """What a block is made of; used while it is made, and not kept.

    Attributes:
      width, heads: D and H.
      inner: width inside the feed-forward half.
      init: of kernels that read from the residual stream.
      init_out: of those that write into it.
      init_query: of the queries' kernel, where it is another one.
      kv_heads: G; None is H.
      head_width: K; None is D / H.
      arrangement: of halves and norms.
      norm, epsilon: which normalisation, and what it adds to the variance; None is its own default.
      activation: of the feed-forward half.
      sight: what a token sees of its segment.
      scaled: whether scores are divided by sqrt(K).
      query_factor: what queries are multiplied by (`nn.mup`).
      qk_norm: whether queries and keys are normalised.
      bias: whether products and norms have biases.
      dropout: probability of zeroing an attention weight, or an entry of what each half adds.
      cross: whether there is attention to a source between the halves.
      routing: how tokens find their experts, where the feed-forward half is a mixture of such; None is a single one.
    """

    width: int
    heads: int
    inner: int
    init: Initializer
    init_out: Initializer
    init_query: Initializer | None = None
    kv_heads: int | None = None
    head_width: int | None = None
    arrangement: Arrangement = "pre_norm"
    norm: Norm = "layer"
    epsilon: float | Array | None = None
    activation: Activation = "gelu"
    sight: Sight = CAUSAL
    scaled: bool = True
    query_factor: float = 1.0
    qk_norm: bool = False
    bias: bool = True
    dropout: Rate = 0.0
    cross: bool = False
    routing: Routing | None = None

    def make_norm(self) -> LayerNorm | RMSNorm:
        """One more of its norms."""
        return make_norm(self.norm, self.width, bias=self.bias, epsilon=self.epsilon)

    def make_mlp(self, rngs: nnx.Rngs) -> MLP | Experts:
        """The feed-forward half."""

        def one(rngs: nnx.Rngs) -> MLP:
            return MLP(self.width, self.inner, self.activation, self.init, self.init_out, bias=self.bias, rngs=rngs)

        return one(rngs) if self.routing is None else Experts(self.routing, one, self.width, rngs)

    def attention(self) -> dict[str, Any]:
        """What its two kinds of attention have in common."""
        return {
            "width": self.width, "heads": self.heads, "init": self.init, "init_out": self.init_out,
            "kv_heads": self.kv_heads, "head_width": self.head_width, "init_query": self.init_query,
            "scaled": self.scaled, "dropout": self.dropout, "bias": self.bias,
        }  # fmt: skip


class Source(NamedTuple):
    """What cross-attention reads.

    Attributes:
      states: the source's states, of which each layer makes keys and values; not looked at where `k` and `v` are given.
      there: which of its tokens are there; None is all.
      k, v: keys and values that were made before, (L, B, S, G, K); inside one layer (B, S, G, K).
    """

    states: Float[Array, "B S D"] | None
    there: Bool[Array, "B S"] | None = None
    k: Float[Array, "L B S G K"] | None = None
    v: Float[Array, "L B S G K"] | None = None


class Looks(NamedTuple):
    """What attention looks at: the share that each token has in the mixture of each token, float32.

    Attributes:
      own: of tokens of the same row; inside one layer (B, H, T, T).
      source: of tokens of the source; None where there is no attention to it.
    """

    own: Float[Array, "L B H T T"]
    source: Float[Array, "L B H T S"] | None = None


class Block(nnx.Module):
    """Attention, attention to a source where the plan has it, and a feed-forward half, each added to its input.

    Args:
      plan: what it is made of.
      rngs: where initial values come from.
    """

    def __init__(self, plan: Plan, rngs: nnx.Rngs) -> None:
        self.arrangement = plan.arrangement
        self.attention_norm = plan.make_norm()
        self.attention = Attention(
            **plan.attention(), sight=plan.sight, query_factor=plan.query_factor, qk_norm=plan.qk_norm, rngs=rngs
        )
        self.cross_norm = plan.make_norm() if plan.cross else None
        self.cross_attention = CrossAttention(**plan.attention(), rngs=rngs) if plan.cross else None
        self.mlp_norm = None if plan.arrangement == "parallel" else plan.make_norm()
        self.mlp = plan.make_mlp(rngs)
        self.dropout = Dropout(plan.dropout)

    @property
    def sites(self) -> int:
        """Places that drop."""
        return 3 if self.cross_attention is None else 5

    def __call__(
        self,
        x: Float[Array, "B*T D"],
        batch: int,
        view: View,
        *,
        cache: KVCache | None = None,
        source: Source | None = None,
        keys: Key[Array, " B"] | None = None,
        layer: int | Array = 0,
    ) -> tuple[Float[Array, "B*T D"], tuple[Array, Array] | None, Sums | None]:
        """The tokens after this block, its part of the cache if one was given, and its router's sums if it has one.

        Args:
          x: tokens of `batch` rows, flattened.
          batch: B.
          view: what is known of the tokens.
          cache: this layer's.
          source: what its cross-attention reads, if it has any.
          keys: one for each row, for dropout.
          layer: its number, which tells its places that drop from those of others.
        """
        site = 1 + self.sites * layer
        y = self._enter(self.attention_norm, x)
        mixed, kept = self.attention(y, batch, view, cache=cache, keys=keys, site=site)
        if self.mlp_norm is None:
            x = x + self._drop(mixed, batch, keys, site + 1)
            fed, sums = self._feed(y, batch, view)
            return x + self._drop(fed, batch, keys, site + 2), kept, sums
        x = self._leave(self.attention_norm, x + self._drop(mixed, batch, keys, site + 1))
        if self.cross_attention is not None and self.cross_norm is not None and source is not None:
            y = self._enter(self.cross_norm, x)
            found = self.cross_attention(y, self.read(source), source.there, keys=keys, site=site + 3)
            x = self._leave(self.cross_norm, x + self._drop(found, batch, keys, site + 4))
        fed, sums = self._feed(self._enter(self.mlp_norm, x), batch, view)
        return self._leave(self.mlp_norm, x + self._drop(fed, batch, keys, site + 2)), kept, sums

    def looks(self, x: Float[Array, "B*T D"], batch: int, view: View, source: Source | None = None) -> Looks:
        """What this block's attention looks at, without a cache and without dropout; arguments as of a call."""
        y = self._enter(self.attention_norm, x)
        own = self.attention.weights(y, batch, view)
        if self.cross_attention is None or self.cross_norm is None or source is None:
            return Looks(own)
        x = self._leave(self.attention_norm, x + self.attention(y, batch, view)[0])
        y = self._enter(self.cross_norm, x)
        return Looks(own, self.cross_attention.weights(y, self.read(source)[0], source.there))

    def read(self, source: Source) -> tuple[Float[Array, "B S G K"], Float[Array, "B S G K"]]:
        """The source's keys and values in this layer."""
        if source.k is not None and source.v is not None:
            return source.k, source.v
        assert self.cross_attention is not None and source.states is not None
        return self.cross_attention.read(source.states)

    def _feed(self, x: Float[Array, "B*T D"], batch: int, view: View) -> tuple[Array, Sums | None]:
        """The feed-forward half, and its router's sums."""
        if isinstance(self.mlp, Experts):
            return self.mlp(x, batch, view.segment_ids)
        return self.mlp(x), None

    def _enter(self, norm: LayerNorm | RMSNorm, x: Array) -> Array:
        return x if self.arrangement == "post_norm" else norm(x)

    def _leave(self, norm: LayerNorm | RMSNorm, x: Array) -> Array:
        return norm(x) if self.arrangement == "post_norm" else x

    def _drop(self, x: Float[Array, "B*T D"], batch: int, keys: Key[Array, " B"] | None, site: int | Array) -> Array:
        return self.dropout(x.reshape(batch, -1, x.shape[-1]), keys, site).reshape(x.shape)


def make_blocks(plan: Plan, layers: int, rngs: nnx.Rngs) -> Block:
    """A stack of `layers` blocks."""
    return make_stack(lambda rngs: Block(plan, rngs), layers, rngs)


def run_blocks(
    blocks: Block,
    x: Float[Array, "B*T D"],
    batch: int,
    view: View,
    *,
    cache: KVCache | None = None,
    source: Source | None = None,
    keys: Key[Array, " B"] | None = None,
    scan: bool,
    remat: Remat,
    stack: str = "",
) -> tuple[Float[Array, "B*T D"], tuple[Array, Array] | None]:
    """The tokens after all blocks, and the keys and values of all layers if a cache was given; see `Block`.

    What routers are charged for is reported to whoever trains (`nn.auxiliary`), under names that begin with `stack`.
    """

    def body(block: Block, x: Array, at: tuple[Array, Any]) -> tuple[Array, Any]:
        layer, (kept, made) = at
        own = None if cache is None else KVCache(kept[0], kept[1], cache.length)
        told = source if source is None or made is None else source._replace(k=made[0], v=made[1])
        x, kept, sums = block(by_rows(x), batch, view, cache=own, source=told, keys=keys, layer=layer)
        return x, (kept, sums)

    slots = None if cache is None else (cache.k, cache.v)
    made = None if source is None or source.k is None else (source.k, source.v)
    x, (kept, sums) = run_stack(blocks, body, x, (slots, made), scan=scan, remat=remat)
    if isinstance(blocks.mlp, Experts):
        sums = jax.tree.map(joined, sums, is_leaf=is_layers)
        report_routing(blocks.mlp.routing, sums, batch, x.shape[0] // batch, view.segment_ids, stack)
    return x, kept


def watch_blocks(
    blocks: Block,
    x: Float[Array, "B*T D"],
    batch: int,
    view: View,
    *,
    source: Source | None = None,
    scan: bool,
) -> Looks:
    """What the attention of all blocks looks at; see `run_blocks`."""

    def body(block: Block, x: Array, at: tuple[Array, Any]) -> tuple[Array, Looks]:
        return block(by_rows(x), batch, view, source=source)[0], block.looks(x, batch, view, source)

    return run_stack(blocks, body, x, scan=scan, remat="none")[1]


def check_heads(model: str, width: int, heads: int, kv_heads: int | None, positions: str) -> None:
    """ConfigError unless a model's width divides into its heads, and these into groups, as its positions need.

    Args:
      model: its name.
      width, heads, kv_heads: D, H and G (None is H).
      positions: the kind of them.
    """
    if width % heads:
        raise ConfigError(f"{model}.width = {width} does not divide into {model}.heads = {heads} equal heads.")
    if kv_heads is not None and heads % kv_heads:
        raise ConfigError(
            f"{model}.kv_heads = {kv_heads} does not divide {model}.heads = {heads}: each head of keys and values "
            "serves equally many heads of queries."
        )
    if positions == "rotary" and width // heads % 2:
        raise ConfigError(f"rotary positions need heads of even width; {width} / {heads} is {width // heads}.")
