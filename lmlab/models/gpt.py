"""Decoder-only transformers: GPT-2 (Radford et al. 2019) and its common variations."""

from __future__ import annotations

import math
from typing import Any, ClassVar, Literal

import jax.numpy as jnp
from flax import nnx
from jax import Array
from jaxtyping import Float, Int, Key

from lmlab.errors import ConfigError
from lmlab.nn.attention import Attention, KVCache
from lmlab.nn.dropout import Dropout, Rate
from lmlab.nn.layout import by_rows
from lmlab.nn.linear import Embedding, Linear, normal
from lmlab.nn.mlp import MLP, Activation
from lmlab.nn.norm import LayerNorm, RMSNorm
from lmlab.nn.positions import LearnedPositions, Rotation, rotation
from lmlab.nn.stack import Remat, make_stack, run_stack
from lmlab.ranges import Count, NonNegative, Positive, ProperFraction
from lmlab.registry import models

Norm = Literal["layer", "rms"]
_SITES = 3  # places that drop in one block; the embedding is site 0


class Block(nnx.Module):
    """x + attention(norm(x)), then x + mlp(norm(x)): the residual stream itself is never normalised.

    Args: those of `GPT`; `inner` is the width inside the feed-forward half.
    """

    def __init__(
        self,
        width: int,
        heads: int,
        inner: int,
        *,
        norm: Norm,
        activation: Activation,
        bias: bool,
        dropout: Rate,
        init_std: float | Array,
        layers: int,
        rngs: nnx.Rngs,
    ) -> None:
        init, init_out = normal(init_std), normal(init_std / math.sqrt(2 * layers))
        self.attention_norm = _norm(norm, width, bias)
        self.attention = Attention(width, heads, init, init_out, dropout=dropout, bias=bias, rngs=rngs)
        self.mlp_norm = _norm(norm, width, bias)
        self.mlp = MLP(width, inner, activation, init, init_out, bias=bias, rngs=rngs)
        self.dropout = Dropout(dropout)

    def __call__(
        self,
        x: Float[Array, "B*T D"],
        batch: int,
        segment_ids: Int[Array, "B T"] | None,
        turn: Rotation | None,
        cache: KVCache | None,
        keys: Key[Array, " B"] | None,
        layer: Array,
    ) -> tuple[Float[Array, "B*T D"], tuple[Array, Array] | None]:
        """The tokens after this block, and its part of the cache."""
        site = 1 + _SITES * layer
        mixed, kept = self.attention(
            self.attention_norm(x), batch, segment_ids=segment_ids, rotation=turn, cache=cache, keys=keys, site=site
        )
        x = x + self._drop(mixed, batch, keys, site + 1)
        return x + self._drop(self.mlp(self.mlp_norm(x)), batch, keys, site + 2), kept

    def _drop(self, x: Float[Array, "B*T D"], batch: int, keys: Key[Array, " B"] | None, site: Array) -> Array:
        return self.dropout(x.reshape(batch, -1, x.shape[-1]), keys, site).reshape(x.shape)


@models.register("gpt")
class GPT(nnx.Module):
    """A pre-norm decoder with GPT-2's defaults and initialisation.

    Capabilities: CausalLM.

    Args:
      vocab: number of token ids, V (given by the tokenizer).
      seq_len: tokens per training row; the number of learned positions.
      dtype: compute dtype; parameters, softmax, norms and logits are float32.
      rngs: where initial values come from.
      width: D; 768 in GPT-2.
      layers: number of blocks, L.
      heads: H, a divisor of `width`.
      mlp_ratio: width inside the feed-forward half, in multiples of D.
      positions: `learned` vectors added to the embedding, which end at `seq_len`, or `rotary` angles of queries
        and keys (arXiv:2104.09864), which do not.
      norm: `layer` or `rms`.
      activation: of the feed-forward half.
      bias: False leaves out the biases of all products and norms.
      tie_embeddings: project with the transposed embedding.
      dropout: probability of zeroing an entry of the embedding, of the attention weights and of what each half
        block adds, in [0, 1).
      init_std: standard deviation of initial weights; that of products which write into the residual stream is
        divided by sqrt(2 L) (GPT-2, section 2.3).
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
        mlp_ratio: Positive = 4.0,
        positions: Literal["learned", "rotary"] = "learned",
        norm: Norm = "layer",
        activation: Activation = "gelu",
        bias: bool = True,
        tie_embeddings: bool = True,
        dropout: ProperFraction = 0.0,
        init_std: NonNegative = 0.02,
        scan: bool = True,
        remat: Remat = "dots",
    ) -> None:
        _check(width, heads, positions)
        self.seq_len, self.dtype = seq_len, dtype
        self.layers, self.heads, self.head_width = layers, heads, width // heads
        self.scan, self.remat = scan, remat
        self.embedding = Embedding(vocab, width, normal(init_std), rngs=rngs)
        learned = positions == "learned"
        self.positions = LearnedPositions(seq_len, width, normal(init_std), rngs=rngs) if learned else None
        self.dropout = Dropout(dropout)

        def block(rngs: nnx.Rngs) -> Block:
            return Block(
                width, heads, round(mlp_ratio * width), norm=norm, activation=activation, bias=bias,
                dropout=dropout, init_std=init_std, layers=layers, rngs=rngs,
            )  # fmt: skip

        self.blocks = make_stack(block, layers, rngs)
        self.norm = _norm(norm, width, bias)
        self.head = None if tie_embeddings else Linear(width, vocab, normal(init_std), bias=False, rngs=rngs)

    def hidden(
        self,
        tokens: Int[Array, "B T"],
        *,
        positions: Int[Array, "B T"] | None = None,
        segment_ids: Int[Array, "B T"] | None = None,
        cache: KVCache | None = None,
        keys: Key[Array, " B"] | None = None,
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
        """
        batch, time = tokens.shape
        x = self._embed(tokens, positions, cache, keys)
        turn = None
        if self.positions is None:
            turn = rotation(_places(positions, cache, time), self.head_width)

        def body(block: Block, x: Array, at: tuple[Array, Any]) -> tuple[Array, Any]:
            layer, kept = at
            own = None if cache is None else KVCache(kept[0], kept[1], cache.length)
            return block(by_rows(x), batch, segment_ids, turn, own, keys, layer)

        inputs = None if cache is None else (cache.k, cache.v)
        x, kept = run_stack(self.blocks, body, x, inputs, scan=self.scan, remat=self.remat)
        states = self.norm(x).reshape(batch, time, -1)
        if cache is None:
            return states, None
        read = time if segment_ids is None else (segment_ids != 0).sum(1, dtype=jnp.int32)
        return states, KVCache(kept[0], kept[1], cache.length + read)

    def project(self, hidden: Float[Array, "*N D"]) -> Float[Array, "*N V"]:
        """Next-token logits, float32."""
        return (self.head or self.embedding).project(hidden)

    def logits(self, tokens: Int[Array, "B T"], **given: Any) -> Float[Array, "B T V"]:
        """Next-token logits after each token, float32; `given` as in `hidden`."""
        return self.project(self.hidden(tokens, **given)[0])

    def init_cache(self, batch: int, length: int) -> KVCache:
        """An empty cache with `length` slots for each of `batch` rows.

        Raises:
          ConfigError: there is no learned position for that many tokens.
        """
        if self.positions is not None and length > self.seq_len:
            raise ConfigError(
                f"a gpt with learned positions reads at most seq_len = {self.seq_len} tokens, not {length}. "
                "Ask for fewer, or train with gpt.positions = 'rotary'."
            )
        shape = (self.layers, batch, length, self.heads, self.head_width)
        return KVCache(jnp.zeros(shape, self.dtype), jnp.zeros(shape, self.dtype), jnp.zeros(batch, jnp.int32))

    def _embed(
        self, tokens: Array, positions: Array | None, cache: KVCache | None, keys: Array | None
    ) -> Float[Array, "B*T D"]:
        x, time = self.embedding(tokens, self.dtype), tokens.shape[1]
        if self.positions is not None and positions is None and cache is None and time <= self.seq_len:
            x = x + self.positions.first(time, self.dtype)
        elif self.positions is not None:
            x = x + self.positions(_places(positions, cache, time), self.dtype)
        return self.dropout(x, keys, 0).reshape(-1, x.shape[-1])


def _places(positions: Array | None, cache: KVCache | None, time: int) -> Int[Array, "B T"]:
    """Each token's place in its document: as given, or counted on from the start or from what the cache has read."""
    if positions is not None:
        return positions
    start = jnp.zeros(1, jnp.int32) if cache is None else cache.length
    return start[:, None] + jnp.arange(time)


def _norm(norm: Norm, width: int, bias: bool) -> LayerNorm | RMSNorm:
    return LayerNorm(width, bias=bias) if norm == "layer" else RMSNorm(width)


def _check(width: int, heads: int, positions: str) -> None:
    if width % heads:
        raise ConfigError(f"gpt.width = {width} does not divide into gpt.heads = {heads} equal heads.")
    if positions == "rotary" and width // heads % 2:
        raise ConfigError(f"rotary positions need heads of even width; {width} / {heads} is {width // heads}.")
