"""Answers that are a stretch of a text."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import jax.numpy as jnp
from flax import nnx
from jax import Array
from jaxtyping import Float, Int, Key

from lmlab.contracts import CausalLM, LossOutput, SpanBatch, TokenEncoder
from lmlab.losses.cross_entropy import NEVER, class_sums
from lmlab.nn.heads import Classifier
from lmlab.nn.states import token_states
from lmlab.ranges import ProperFraction
from lmlab.registry import losses


@losses.register("span")
@dataclass(frozen=True)
class Span:
    """Cross-entropy of the first and of the last place of an answer, added, in nats summed over questions.

    Each token's state is scored as a beginning and as an end, among the tokens of its row (Devlin et al. 2019, section
    4.2); padding is none of them. Where there is no answer both are place 0 (section 4.3).

    Needs: TokenEncoder or CausalLM, and a batch of `tokens`, `segment_ids`, `type_ids` and of `starts`, `ends` and
    `weights` (B,).
    Metrics, per question: `nats`, without smoothing; `start_accuracy` and `end_accuracy`.

    Args:
      label_smoothing: share of each target given to all places alike.
      dropout: of the states.
    """

    needs: ClassVar[tuple[type, ...]] = (TokenEncoder, CausalLM)
    reads: ClassVar[type] = SpanBatch
    EVALUATORS: ClassVar[tuple[str, ...]] = ("span_report",)
    TINY: ClassVar[str] = """
    experiment.dataset = @squad_json
    experiment.seq_len = 47
    """

    label_smoothing: ProperFraction = 0.0
    dropout: ProperFraction = 0.0

    def make_head(self, width: int, rngs: nnx.Rngs) -> Classifier:
        """The layer over the states."""
        return Classifier(width, 2, self.dropout, rngs=rngs)

    def __call__(
        self, model: Any, batch: Mapping[str, Array], keys: Key[Array, " B"] | None, step: Int[Array, ""]
    ) -> LossOutput:
        """Sums over the questions; `keys` switches dropout on."""
        weights, there = batch["weights"], batch["segment_ids"] > 0
        first, last = (
            class_sums(scores, batch[places], weights, there=there, label_smoothing=self.label_smoothing)
            for scores, places in zip(self.scores(model, batch, keys), ("starts", "ends"), strict=True)
        )
        metrics = {
            "nats": (first.metrics["nats"][0] + last.metrics["nats"][0], first.weight),
            "start_accuracy": first.metrics["accuracy"],
            "end_accuracy": last.metrics["accuracy"],
        }
        return LossOutput(first.total + last.total, first.weight, metrics)

    def scores(
        self, model: Any, batch: Mapping[str, Array], keys: Key[Array, " B"] | None = None
    ) -> tuple[Float[Array, "B T"], Float[Array, "B T"]]:
        """Logits of every place as the beginning and as the end of the answer, float32."""
        segments = batch["segment_ids"]
        states = token_states(model, batch["tokens"], segment_ids=segments, type_ids=batch["type_ids"], keys=keys)
        scores = jnp.where(segments[..., None] > 0, model.task_head(states, keys), NEVER)
        return scores[..., 0], scores[..., 1]
