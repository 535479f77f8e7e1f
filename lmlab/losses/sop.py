"""ALBERT's pre-training: masked tokens, and in which order two passages stand."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from jax import Array
from jaxtyping import Int, Key

from lmlab.contracts import LossOutput, SentenceOrderBatch
from lmlab.losses.mlm_nsp import MaskedPair
from lmlab.ranges import NonNegative
from lmlab.registry import losses


@losses.register("sop")
@dataclass(frozen=True)
class SentenceOrder(MaskedPair):
    """Cross-entropy of masked tokens (see `mlm`), and of whether two passages are in their order, in nats.

    Lan et al. 2020 (arXiv:1909.11942, section 3.1): the passages stand one after the other in a document, and half of
    the pairs are swapped, so that the topic does not give the answer away. Both are found from one reading of the
    masked row, and added as in `mlm_nsp`.

    Needs: BidirectionalLM, and a batch as that of `mlm` with `type_ids`, `follows` (0 where swapped) and
    `pair_weights` (B,).
    Metrics: those of `mlm`; `order_nats` and `order_accuracy` per row.

    Args:
      vocab: number of token ids, V (given by the data).
      special_ids: ids that stand for no text (given by the data).
      rate, keep, random, whole_words, span, chunk: see `mlm`.
      order_weight: of the second question's mean against the first one's.

    Raises:
      ConfigError: as `mlm`.
    """

    reads: ClassVar[type] = SentenceOrderBatch

    order_weight: NonNegative = 1.0

    def __call__(
        self, model: Any, batch: Mapping[str, Array], keys: Key[Array, " B"] | None, step: Int[Array, ""]
    ) -> LossOutput:
        """Sums over the chosen tokens and the rows; `keys` choose them, and switch the model's dropout on."""
        return self.both(model, batch, keys, "order", self.order_weight)
