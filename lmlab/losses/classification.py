"""Labels of whole texts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from flax import nnx
from jax import Array
from jaxtyping import Float, Int, Key

from lmlab.contracts import CausalLM, LabelBatch, LossOutput, TokenEncoder
from lmlab.losses.cross_entropy import class_sums
from lmlab.nn.heads import Classifier, pooled
from lmlab.nn.states import token_states
from lmlab.ranges import ProperFraction
from lmlab.registry import losses


@losses.register("classification")
@dataclass(frozen=True)
class Classification:
    """Cross-entropy of the label of a text or of a pair, in nats summed over texts (Devlin et al. 2019, section 4.1).

    A linear layer scores the labels from one vector per text: the model's own (its pooler), else the mean of an
    encoder's states, else the last state of a causal model. A label that no training example has is always an error,
    and does not count in the loss.

    Needs: TokenEncoder or CausalLM, and a batch of `tokens`, `segment_ids`, `type_ids`, `labels` and `weights` (B,).
    Metrics: `nats` (cross-entropy without smoothing) and `accuracy`, per text.

    Args:
      labels: names of the labels, by id (given by the data).
      label_smoothing: share of each target given to all labels alike.
      dropout: of the vector.
    """

    needs: ClassVar[tuple[type, ...]] = (TokenEncoder, CausalLM)
    reads: ClassVar[type] = LabelBatch
    EVALUATORS: ClassVar[tuple[str, ...]] = ("classification_report",)
    TINY: ClassVar[str] = "experiment.dataset = @table_labelled"

    labels: tuple[str, ...]
    label_smoothing: ProperFraction = 0.0
    dropout: ProperFraction = 0.1

    def make_head(self, width: int, rngs: nnx.Rngs) -> Classifier:
        """The layer over the vector."""
        return Classifier(width, len(self.labels), self.dropout, rngs=rngs)

    def __call__(
        self, model: Any, batch: Mapping[str, Array], keys: Key[Array, " B"] | None, step: Int[Array, ""]
    ) -> LossOutput:
        """Sums over the texts; `keys` switches dropout on."""
        logits = self.scores(model, batch, keys)
        return class_sums(logits, batch["labels"], batch["weights"], label_smoothing=self.label_smoothing)

    def scores(
        self, model: Any, batch: Mapping[str, Array], keys: Key[Array, " B"] | None = None
    ) -> Float[Array, "B C"]:
        """Logits of the labels, float32."""
        segments = batch["segment_ids"]
        states = token_states(model, batch["tokens"], segment_ids=segments, type_ids=batch["type_ids"], keys=keys)
        return model.task_head(pooled(model, states, segments), keys)
