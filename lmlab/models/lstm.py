"""Recurrent language models: LSTM (Hochreiter & Schmidhuber 1997)."""

from __future__ import annotations

from typing import Any, ClassVar

from flax import nnx

from lmlab.models.recurrent import RecurrentLM
from lmlab.nn.recurrent import LSTMLayer
from lmlab.nn.stack import Remat
from lmlab.ranges import Count, NonNegative, ProperFraction
from lmlab.registry import models


@models.register("lstm")
class LSTM(RecurrentLM):
    """A stack of LSTM layers between an embedding and a softmax (Zaremba et al. 2014, arXiv:1409.2329).

    Capabilities: CausalLM.

    Args:
      vocab: number of token ids, V (given by the tokenizer).
      dtype: compute dtype of the products; parameters, gates, states and logits are float32.
      rngs: where initial values come from.
      width: hidden size D of every layer, and of the embedding.
      layers: number of layers L.
      dropout: probability of zeroing a non-recurrent connection, in [0, 1).
      locked_dropout: one mask for all steps of a row (variational dropout: Gal & Ghahramani 2016, arXiv:1512.05287;
        AWD-LSTM, arXiv:1708.02182, section 4.2); False draws one for every step.
      embedding_dropout: probability of zeroing a word's embedding, wherever in a row it stands, in [0, 1)
        (AWD-LSTM, section 4.3).
      weight_dropout: share of the entries of the recurrent kernels that is zeroed in a training step, the others being
        scaled up (DropConnect; AWD-LSTM, section 2), in [0, 1).
      activation_reg: coefficient of the mean square of the last layer's dropped outputs (AWD-LSTM, section 4.4); 2
        there.
      temporal_activation_reg: coefficient of the mean square of their changes before dropout, from step to step; 1
        there.
      tie_embeddings: project with the transposed embedding (Press & Wolf 2017, arXiv:1608.05859).
      init_scale: kernels and embeddings are uniform in [-init_scale, init_scale]; 0.1, 0.05 and 0.04 in the
        small, medium and large models of the paper.
      forget_bias: initial bias of the forget gate (Jozefowicz et al. 2015); 0 in the paper.
      scan: one compiled layer run L times; False compiles L layers. The numbers are the same.
      remat: what the backward pass computes again: `none`, `dots` (all but the matrix products outside the
        recurrence) or `full`. The recurrence itself is repeated by both.
    """

    TINY: ClassVar[str] = "lstm.width = 11\nlstm.layers = 2\nlstm.dropout = 0.25"

    def __init__(
        self,
        vocab: int,
        dtype: Any,
        rngs: nnx.Rngs,
        *,
        width: Count = 512,
        layers: Count = 2,
        dropout: ProperFraction = 0.0,
        locked_dropout: bool = False,
        embedding_dropout: ProperFraction = 0.0,
        weight_dropout: ProperFraction = 0.0,
        activation_reg: NonNegative = 0.0,
        temporal_activation_reg: NonNegative = 0.0,
        tie_embeddings: bool = False,
        init_scale: NonNegative = 0.05,
        forget_bias: float = 1.0,
        scan: bool = False,
        remat: Remat = "none",
    ) -> None:
        def layer(rngs: nnx.Rngs) -> LSTMLayer:
            return LSTMLayer(width, width, init_scale, rngs, forget_bias=forget_bias)

        super().__init__(
            vocab, dtype, rngs, layer, width=width, layers=layers, dropout=dropout, tie_embeddings=tie_embeddings,
            init_scale=init_scale, scan=scan, remat=remat, locked_dropout=locked_dropout,
            embedding_dropout=embedding_dropout, weight_dropout=weight_dropout, activation_reg=activation_reg,
            temporal_activation_reg=temporal_activation_reg,
        )  # fmt: skip
