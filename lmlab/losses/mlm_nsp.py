"""BERT's pre-training: masked tokens, and whether one passage follows another."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from flax import nnx
from jax import Array
from jaxtyping import Int, Key

from lmlab.contracts import LossOutput, SentencePairBatch
from lmlab.losses.cross_entropy import class_sums
from lmlab.losses.mlm import MaskedLM
from lmlab.nn.heads import Classifier, pooled
from lmlab.ranges import NonNegative
from lmlab.registry import losses


class MaskedPair(MaskedLM):
    """Masked tokens, and a question of two answers about the pair of passages that they stand in."""

    TINY: ClassVar[str] = """
    experiment.dataset = @text_files
    experiment.tokenizer = @bytes
    experiment.seq_len = 23
    bytes.specials = ("mask", "separator", "classify")
    """

    def make_head(self, width: int, rngs: nnx.Rngs) -> Classifier:
        """The layer over the row's vector."""
        return Classifier(width, 2, rngs=rngs)

    def both(
        self, model: Any, batch: Mapping[str, Array], keys: Key[Array, " B"] | None, name: str, weight: Any
    ) -> LossOutput:
        """Sums over the chosen tokens and the rows, from one reading; the metrics of the question have its name."""
        tokens, chosen = self.masked(batch, keys)
        segments = batch["segment_ids"]
        states = model.encode(tokens, segment_ids=segments, type_ids=batch["type_ids"], keys=keys)
        of_tokens = self.sums(model, states, batch, chosen)
        logits = model.task_head(pooled(model, states, segments), keys)
        of_rows = class_sums(logits, batch["follows"], batch["pair_weights"])
        metrics = {f"{name}_{metric}": pair for metric, pair in of_rows.metrics.items()}
        as_tokens = self.rate * (batch["weights"] > 0).sum(1)
        by_length = class_sums(logits, batch["follows"], batch["pair_weights"] * as_tokens)
        total = of_tokens.total + weight * by_length.total
        return LossOutput(total, of_tokens.weight, {**of_tokens.metrics, **metrics})


@losses.register("mlm_nsp")
@dataclass(frozen=True)
class MaskedNextSentence(MaskedPair):
    """Cross-entropy of masked tokens (see `mlm`), and of whether the second passage follows the first, in nats.

    Devlin et al. 2019, section 3.1. Both are found from one reading of the masked row: the second from its one vector
    (the model's own pooler, else the mean of its states). There, the loss is the mean over the tokens plus the mean
    over the rows. Here, sums are divided once by the number of chosen tokens; so a row counts as many tokens as are
    chosen from it on average, `rate` times those that may be, which makes a mean over the rows by their lengths.

    Needs: BidirectionalLM, and a batch as that of `mlm` with `type_ids`, `follows` and `pair_weights` (B,).
    Metrics: those of `mlm`; `next_nats` and `next_accuracy` per row.

    Args:
      vocab: number of token ids, V (given by the data).
      special_ids: ids that stand for no text (given by the data).
      rate, keep, random, whole_words, span, chunk: see `mlm`.
      next_weight: of the second question's mean against the first one's.

    Raises:
      ConfigError: as `mlm`.
    """

    reads: ClassVar[type] = SentencePairBatch

    next_weight: NonNegative = 1.0

    def __call__(
        self, model: Any, batch: Mapping[str, Array], keys: Key[Array, " B"] | None, step: Int[Array, ""]
    ) -> LossOutput:
        """Sums over the chosen tokens and the rows; `keys` choose them, and switch the model's dropout on."""
        return self.both(model, batch, keys, "next", self.next_weight)
