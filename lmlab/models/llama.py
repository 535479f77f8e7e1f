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
    (Jiang et al. 2023, arXiv:2310.06825), and with `experts` Mixtral (Jiang et al. 2024, arXiv:2401.04088).

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
      experts: feed-forward halves in each block, of which each token is computed by some (`nn.experts`); 8 in
        Mixtral; None is one for all tokens.
      experts_per_token: of these, how many compute a token; 2 in Mixtral.
      balance_loss: coefficient of the charge on routers that prefer some experts, summed over the blocks.
      router_z_loss: coefficient of the charge on large logits of routers.
      tie_embeddings: project with the transposed embedding.
      dropout: probability of zeroing an entry of the embedding, of the attention weights and of what each half
        block adds, in [0, 1).
      init_std: standard deviation of initial weights; that of products which write into the residual stream is
        divided by sqrt(2 L).
      mup_base_width, mup_base_heads: of the model whose learning rate and initial weights are to serve this one, too
        (muP); see `gpt`.
      scan: one compiled block run L times; False compiles L blocks. The numbers are the same.
      remat: what the backward pass computes again: `none`, `dots` (all but the products with parameters) or `full`.
    """

    TINY: ClassVar[str] = """
    llama.width = 12
    llama.heads = 6
    llama.kv_heads = 3
    llama.layers = 2
    llama.window = 5
    llama.experts = 3
    """

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
        experts: Count | None = None,
        experts_per_token: Count = 2,
        balance_loss: NonNegative = 0.01,
        router_z_loss: NonNegative = 0.0,
        tie_embeddings: bool = False,
        dropout: ProperFraction = 0.0,
        init_std: NonNegative = 0.02,
        mup_base_width: Count | None = None,
        mup_base_heads: Count | None = None,
        scan: bool = True,
        remat: Remat = "dots",
    ) -> None:
        super().__init__(
            vocab, seq_len, dtype, rngs,
            width=width, layers=layers, heads=heads, kv_heads=kv_heads, mlp_ratio=mlp_ratio, positions="rotary",
            rotary_base=rotary_base, norm="rms", norm_epsilon=norm_epsilon, activation="swiglu", bias=False,
            window=window, experts=experts, experts_per_token=experts_per_token, balance_loss=balance_loss,
            router_z_loss=router_z_loss, tie_embeddings=tie_embeddings, dropout=dropout, init_std=init_std,
            mup_base_width=mup_base_width, mup_base_heads=mup_base_heads, scan=scan, remat=remat,
        )  # fmt: skip
