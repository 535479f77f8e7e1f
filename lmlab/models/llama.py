"""Decoder-only transformers after Llama (Touvron et al. 2023, arXiv:2302.13971 and arXiv:2307.09288)."""

from __future__ import annotations

from typing import Any, ClassVar

from flax import nnx

from lmlab.models.gpt import GPT
from lmlab.nn.stack import Remat
from lmlab.ranges import Count, NonNegative, Positive, ProperFraction
from lmlab.registry import models


@models.register("llama")
class Llama(GPT):
    """A pre-norm decoder with rotary positions, RMSNorm, SwiGLU and no biases; the defaults are Llama 2 of 7B.

    With fewer `kv_heads` it has grouped queries, as Llama 2 of 70B and TinyLlama; with a `window` it is Mistral
    (Jiang et al. 2023, arXiv:2310.06825).

    Capabilities: CausalLM, PrefixLM.

    Args:
      vocab: number of token ids, V (given by the tokenizer).
      seq_len: tokens per training row.
      dtype: compute dtype; parameters, softmax, norms and logits are float32.
      rngs: where initial values come from.
      width: D.
      layers: number of blocks, L.
      heads: H, a divisor of `width`.
      kv_heads: heads of keys and values, a divisor of `heads`; None is `heads`.
      mlp_ratio: width inside the feed-forward half, in multiples of D; 11008 / 4096 in Llama 2 of 7B.
      rotary_base: of the wavelengths of rotary angles.
      norm_epsilon: added to the mean square; 1e-5 in Llama 2.
      window: tokens that a token sees, itself included; 4096 in Mistral 7B; None is all.
      tie_embeddings: project with the transposed embedding.
      dropout: probability of zeroing an entry of the embedding, of the attention weights and of what each half
        block adds, in [0, 1).
      init_std: standard deviation of initial weights; that of products which write into the residual stream is
        divided by sqrt(2 L).
      scan: one compiled block run L times; False compiles L blocks. The numbers are the same.
      remat: what the backward pass computes again: `none`, `dots` (all but the products with parameters) or `full`.
    """

    TINY: ClassVar[str] = "llama.width = 12\nllama.heads = 6\nllama.kv_heads = 3\nllama.layers = 2\nllama.window = 5"

    def __init__(
        self,
        vocab: int,
        seq_len: int,
        dtype: Any,
        rngs: nnx.Rngs,
        *,
        width: Count = 4096,
        layers: Count = 32,
        heads: Count = 32,
        kv_heads: Count | None = None,
        mlp_ratio: Positive = 2.6875,
        rotary_base: Positive = 10_000.0,
        norm_epsilon: Positive = 1e-5,
        window: Count | None = None,
        tie_embeddings: bool = False,
        dropout: ProperFraction = 0.0,
        init_std: NonNegative = 0.02,
        scan: bool = True,
        remat: Remat = "dots",
    ) -> None:
        super().__init__(
            vocab, seq_len, dtype, rngs,
            width=width, layers=layers, heads=heads, kv_heads=kv_heads, mlp_ratio=mlp_ratio, positions="rotary",
            rotary_base=rotary_base, norm="rms", norm_epsilon=norm_epsilon, activation="swiglu", bias=False,
            window=window, tie_embeddings=tie_embeddings, dropout=dropout, init_std=init_std, scan=scan, remat=remat,
        )  # fmt: skip
