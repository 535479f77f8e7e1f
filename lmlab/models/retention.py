"""RetNet (Sun et al. 2023, arXiv:2307.08621): retention, attention with a decay for the softmax."""

from __future__ import annotations

import math
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array
from jaxtyping import Float

from lmlab.errors import ConfigError
from lmlab.nn.linear import Columns, Initializer, Linear, normal
from lmlab.nn.linear_attention import linear_attention
from lmlab.nn.mlp import MLP, Activation
from lmlab.nn.norm import LayerNorm
from lmlab.nn.positions import rotate, rotation
from lmlab.nn.reading import Reading
from lmlab.nn.stack import Remat
from lmlab.nn.stacked_lm import Block, StackedLM
from lmlab.ranges import Count, NonNegative, ProperFraction
from lmlab.registry import models


class HeadNorm(nnx.Module):
    """GroupNorm (Wu & He 2018, arXiv:1803.08494) of each token with a group for each head, in float32.

    Args:
      heads: H.
      width: of one head, V.
    """

    def __init__(self, heads: int, width: int) -> None:
        self.scale = nnx.Param(jnp.ones((heads, width)), role="scale")
        self.bias = nnx.Param(jnp.zeros((heads, width)), role="bias")

    def __call__(self, x: Float[Array, "B T H V"]) -> Float[Array, "B T H V"]:
        """Each head's vector normalised."""
        centred = x - x.mean(-1, keepdims=True)
        variance = (centred * centred).mean(-1, keepdims=True)
        return centred * jax.lax.rsqrt(variance + 1e-5) * self.scale[...] + self.bias[...]


class Retention(nnx.Module):
    """Gated multi-scale retention (section 2.2): (silu(x W_G) · norm(heads)) W_O.

    Head h decays by γ = 1 - 2^(-5-h); queries and keys are turned by their place. The three normalisations of the
    scores in section 2.2, which the group norm undoes but for its epsilon, are left out but for 1/sqrt(K).
    What is kept is (B, H, K, 2K) float32.

    Args:
      width: D; values are twice as wide.
      heads: H, K = D / H.
      init, init_out: of the kernels; `init_out` writes into the residual stream.
      chunk: see `linear_attention`.
    """

    def __init__(self, width: int, heads: int, init: Initializer, init_out: Initializer, chunk: int, rngs: nnx.Rngs):
        self.heads, self.head_width, self.chunk = heads, width // heads, chunk
        self.qk = Linear(width, 2 * width, init, bias=False, columns=Columns(("q", "k"), heads), rngs=rngs)
        self.v = Linear(width, 2 * width, init, bias=False, rngs=rngs)
        self.gate = Linear(width, 2 * width, init, bias=False, rngs=rngs)
        self.norm = HeadNorm(heads, 2 * self.head_width)
        self.out = Linear(2 * width, width, init_out, bias=False, rngs=rngs)

    def __call__(
        self, x: Float[Array, "B T D"], reading: Reading, cache: Array | None
    ) -> tuple[Float[Array, "B T D"], Array | None]:
        """As `stacked_lm.Mixer`."""
        batch, time, _ = x.shape
        turn = rotation(reading.positions, self.head_width)
        q, k = self.qk(x).reshape(batch, time, self.heads, 2, -1).transpose(3, 0, 2, 1, 4)
        q, k = rotate(q, turn), rotate(k, turn) / math.sqrt(self.head_width)
        v = self.v(x).reshape(batch, time, self.heads, -1).swapaxes(1, 2)
        log_decay = jnp.log1p(-(2.0 ** (-5.0 - jnp.arange(self.heads))))
        state = self.init_cache(batch, time) if cache is None else cache
        y, state = linear_attention(q, k, v, state, reading, log_decay=log_decay, chunk=self.chunk)
        y = self.norm(y.swapaxes(1, 2)).reshape(batch, time, -1).astype(x.dtype)
        return self.out(jax.nn.silu(self.gate(x)) * y), None if cache is None else state

    def init_cache(self, batch: int, length: int) -> Float[Array, "B H K 2K"]:
        """As `stacked_lm.Mixer`; of one size, whatever `length` is."""
        del length
        return jnp.zeros((batch, self.heads, self.head_width, 2 * self.head_width))


@models.register("retention")
class RetNet(StackedLM):
    """A stack of retention and feed-forward halves, each before a norm; positions are angles, texts of any length.

    Capabilities: CausalLM.

    Initialised as GPT-2 (the authors follow DeepNet).

    Args:
      vocab: number of token ids, V (given by the tokenizer).
      dtype: compute dtype; parameters, sums, states, norms and logits are float32.
      rngs: where initial values come from.
      width: D; 2048 in the model with 1.3 billion parameters.
      layers: number of blocks, L; 24 in that model.
      heads: H, a divisor of `width` into even parts; 256 wide in the paper.
      mlp_ratio: width inside the feed-forward half, in multiples of D; 2 in the paper, whose values are twice as wide
        as a transformer's instead; 0 leaves that half out.
      activation: of the feed-forward half.
      tie_embeddings: project with the transposed embedding.
      dropout: probability of zeroing an entry of the embedding and of what each half block adds, in [0, 1).
      init_std: standard deviation of initial weights; that of products which write into the residual stream is
        divided by sqrt(2 L).
      chunk: tokens that are computed in parallel. The numbers are the same.
      scan: one compiled block run L times; False compiles L blocks. The numbers are the same.
      remat: what the backward pass computes again: `none`, `dots` (all but the products with parameters) or `full`.
        What is inside a chunk is computed again by all three.
    """

    OPERATIONAL: ClassVar[frozenset[str]] = frozenset({"chunk", "scan", "remat"})
    TINY: ClassVar[str] = """
    retention.width = 12
    retention.heads = 3
    retention.layers = 2
    retention.chunk = 3
    retention.dropout = 0.25
    """

    def __init__(
        self,
        vocab: int,
        dtype: Any,
        rngs: nnx.Rngs,
        *,
        width: Count = 768,
        layers: Count = 12,
        heads: Count = 3,
        mlp_ratio: NonNegative = 2.0,
        activation: Activation = "gelu",
        tie_embeddings: bool = True,
        dropout: ProperFraction = 0.0,
        init_std: NonNegative = 0.02,
        chunk: Count = 64,
        scan: bool = True,
        remat: Remat = "dots",
    ) -> None:
        if width % (2 * heads):
            raise ConfigError(
                f"retention.width = {width} does not divide into retention.heads = {heads} equal heads of even width."
            )
        init, init_out = normal(init_std), normal(init_std / math.sqrt(2 * layers))

        def block(rngs: nnx.Rngs) -> Block:
            mixer = Retention(width, heads, init, init_out, chunk, rngs)
            inner = round(mlp_ratio * width)
            mlp = MLP(width, inner, activation, init, init_out, rngs=rngs) if inner else None
            return Block(dtype, lambda: LayerNorm(width), mixer, mlp, dropout)

        super().__init__(
            vocab, width, dtype, rngs, block, layers,
            norm=LayerNorm(width), init=init, dropout=dropout, scan=scan, remat=remat, tie_embeddings=tie_embeddings,
        )  # fmt: skip
