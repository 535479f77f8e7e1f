"""The linear transformer (Katharopoulos et al. 2020, arXiv:2006.16236): a feature map for the softmax."""

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
from lmlab.nn.reading import Reading
from lmlab.nn.stack import Remat
from lmlab.nn.stacked_lm import Block, StackedLM
from lmlab.ranges import Count, NonNegative, ProperFraction
from lmlab.registry import models

_EPSILON = 1e-6  # added to the sum of the shares


class LinearAttentionMixer(nnx.Module):
    """Σ φ(q_t)·φ(k_s) v_s / Σ φ(q_t)·φ(k_s) over s ≤ t, with φ = elu + 1 (equations 7 to 9).

    What is kept is Σ φ(k_s) v_sᵀ and Σ φ(k_s), as one more column: (B, H, K, K+1), float32.

    Args:
      width: D.
      heads: H, K = D / H.
      init, init_out: of the kernels; `init_out` writes into the residual stream.
      chunk: see `linear_attention`.
    """

    def __init__(self, width: int, heads: int, init: Initializer, init_out: Initializer, chunk: int, rngs: nnx.Rngs):
        self.heads, self.head_width, self.chunk = heads, width // heads, chunk
        self.qkv = Linear(width, 3 * width, init, columns=Columns(("q", "k", "v"), heads), rngs=rngs)
        self.out = Linear(width, width, init_out, rngs=rngs)

    def __call__(
        self, x: Float[Array, "B T D"], reading: Reading, cache: Array | None
    ) -> tuple[Float[Array, "B T D"], Array | None]:
        """As `stacked_lm.Mixer`."""
        batch, time, width = x.shape
        q, k, v = self.qkv(x).reshape(batch, time, self.heads, 3, -1).transpose(3, 0, 2, 1, 4)
        v = jnp.concatenate((v, jnp.ones_like(v[..., :1])), -1)
        state = self.init_cache(batch, time) if cache is None else cache
        sums, state = linear_attention(
            _feature(q), _feature(k), v, state, reading, log_decay=jnp.zeros(self.heads), chunk=self.chunk
        )
        y = (sums[..., :-1] / (sums[..., -1:] + _EPSILON)).astype(x.dtype)
        return self.out(y.swapaxes(1, 2).reshape(batch, time, width)), None if cache is None else state

    def init_cache(self, batch: int, length: int) -> Float[Array, "B H K K+1"]:
        """As `stacked_lm.Mixer`; of one size, whatever `length` is."""
        del length
        return jnp.zeros((batch, self.heads, self.head_width, self.head_width + 1))


def _feature(x: Array) -> Array:
    return jax.nn.elu(x) + 1


@models.register("linear_attention")
class LinearTransformer(StackedLM):
    """A pre-norm decoder as GPT-2's, with linear attention: time and memory linear in T, decoding from a fixed state.

    Capabilities: CausalLM.

    The authors normalise behind each half block; here it is before it, and initialised, as in GPT-2.

    Args:
      vocab: number of token ids, V (given by the tokenizer).
      seq_len: tokens per training row; the number of learned positions.
      dtype: compute dtype; parameters, sums, states, norms and logits are float32.
      rngs: where initial values come from.
      width: D.
      layers: number of blocks, L.
      heads: H, a divisor of `width`.
      mlp_ratio: width inside the feed-forward half, in multiples of D; 0 leaves that half out.
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
    linear_attention.width = 6
    linear_attention.heads = 2
    linear_attention.layers = 2
    linear_attention.chunk = 3
    linear_attention.dropout = 0.25
    """

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
        mlp_ratio: NonNegative = 4.0,
        activation: Activation = "gelu",
        tie_embeddings: bool = True,
        dropout: ProperFraction = 0.0,
        init_std: NonNegative = 0.02,
        chunk: Count = 64,
        scan: bool = True,
        remat: Remat = "dots",
    ) -> None:
        if width % heads:
            raise ConfigError(
                f"linear_attention.width = {width} does not divide into linear_attention.heads = {heads} equal heads."
            )
        init, init_out = normal(init_std), normal(init_std / math.sqrt(2 * layers))

        def block(rngs: nnx.Rngs) -> Block:
            mixer = LinearAttentionMixer(width, heads, init, init_out, chunk, rngs)
            inner = round(mlp_ratio * width)
            mlp = MLP(width, inner, activation, init, init_out, rngs=rngs) if inner else None
            return Block(dtype, lambda: LayerNorm(width), mixer, mlp, dropout)

        super().__init__(
            vocab, width, dtype, rngs, block, layers,
            norm=LayerNorm(width), init=init, dropout=dropout, scan=scan, remat=remat,
            positions=seq_len, tie_embeddings=tie_embeddings,
        )  # fmt: skip
