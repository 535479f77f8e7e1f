"""Tags of words, and labels of the sentences that they stand in."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import jax.numpy as jnp
from flax import nnx
from jax import Array
from jaxtyping import Bool, Float, Int, Key

from lmlab.contracts import CausalLM, LossOutput, TagBatch, TokenEncoder
from lmlab.losses.cross_entropy import class_sums
from lmlab.nn.heads import Tagger, pooled
from lmlab.nn.states import token_states
from lmlab.ranges import NonNegative, ProperFraction
from lmlab.registry import losses


@losses.register("tagging")
@dataclass(frozen=True)
class Tagging:
    """Cross-entropy of the tags of words, in nats summed over words (Devlin et al. 2019, section 5.3).

    The state of each word's first sub-word is scored. With `crf` the tags of a sentence are one sequence: minus its log
    probability (Lample et al. 2016, section 2.2), by the forward algorithm. Where sentences have labels, theirs is
    found too, and its cross-entropy added: together, minus log p(label, tags | text) (Chen et al. 2019,
    arXiv:1902.10909, section 3.2). A tag or a label that training does not have is an error, and does not count in the
    loss; with `crf`, nor do the other tags of its sentence.

    Needs: TokenEncoder or CausalLM, and a batch of `tokens`, `segment_ids`, `tags`, `weights` (1 where a word begins)
    and, where there are such, `labels` (B,).
    Metrics: `nats` of tags and `accuracy`, per word, without smoothing; and for labels `label_nats` and
    `label_accuracy`, per sentence.

    Args:
      tags: names of the tags, by id (given by the data).
      labels: names of the labels, by id (given by the data).
      crf: score tags together with their neighbours.
      label_smoothing: share of each target given to all alike; not with `crf`, which has no such targets.
      label_weight: of the labels' cross-entropy in the sum.
      dropout: of the states.
    """

    needs: ClassVar[tuple[type, ...]] = (TokenEncoder, CausalLM)
    reads: ClassVar[type] = TagBatch
    EVALUATORS: ClassVar[tuple[str, ...]] = ("held_out", "tagging_report")
    TINY: ClassVar[str] = """
    experiment.dataset = @conll
    experiment.seq_len = 19
    tagging.crf = True
    """

    tags: tuple[str, ...]
    labels: tuple[str, ...]
    crf: bool = False
    label_smoothing: ProperFraction = 0.0
    label_weight: NonNegative = 1.0
    dropout: ProperFraction = 0.1

    def make_head(self, width: int, rngs: nnx.Rngs) -> Tagger:
        """Layers over the states and over the vector of the sentence."""
        return Tagger(width, len(self.tags), len(self.labels), self.crf, self.dropout, rngs=rngs)

    def __call__(
        self, model: Any, batch: Mapping[str, Array], keys: Key[Array, " B"] | None, step: Int[Array, ""]
    ) -> LossOutput:
        """Sums over words and sentences; `keys` switches dropout on."""
        tag_logits, label_logits = self.scores(model, batch, keys)
        output = self._of_tags(model, tag_logits, batch)
        if label_logits is None:
            return output
        there = (batch["weights"] > 0).any(1).astype(jnp.float32)
        more = class_sums(label_logits, batch["labels"], there, label_smoothing=self.label_smoothing)
        of_labels = {f"label_{name}": pair for name, pair in more.metrics.items()}
        total = output.total + self.label_weight * more.total
        return LossOutput(total, output.weight, {**output.metrics, **of_labels})

    def scores(
        self, model: Any, batch: Mapping[str, Array], keys: Key[Array, " B"] | None = None
    ) -> tuple[Float[Array, "B T C"], Float[Array, "B labels"] | None]:
        """Logits of the tags of every token and, where the batch has labels, of those, float32."""
        states = token_states(model, batch["tokens"], segment_ids=batch["segment_ids"], keys=keys)
        head: Tagger = model.task_head
        if head.labels is None:
            return head.tags(states, keys), None
        return head.tags(states, keys), head.labels(pooled(model, states, batch["segment_ids"]), keys)

    def predicted(self, model: Any, tag_logits: Float[Array, "B T C"], there: Bool[Array, "B T"]) -> Int[Array, "B T"]:
        """The best tag of each word, where `there`; with `crf`, of the best sequence."""
        if not self.crf:
            return tag_logits.argmax(-1)
        order, back = _words_first(there)
        best = model.task_head.chain.best(_moved(tag_logits, order), _moved(there, order))
        return _moved(best, back)

    def _of_tags(self, model: Any, logits: Float[Array, "B T C"], batch: Mapping[str, Array]) -> LossOutput:
        tags, weights = batch["tags"], batch["weights"].astype(jnp.float32)
        if not self.crf:
            flat = logits.reshape(-1, logits.shape[-1]), tags.reshape(-1), weights.reshape(-1)
            return class_sums(*flat, label_smoothing=self.label_smoothing)
        there = weights > 0
        order, _ = _words_first(there)
        known = ~(there & (tags < 0)).any(1)
        arrays = (_moved(x, order) for x in (logits, jnp.maximum(tags, 0), there))
        total = -jnp.where(known, model.task_head.chain.log_probability(*arrays), 0).sum()
        weight = jnp.where(known[:, None] & there, 1.0, 0.0).sum()
        right = (there & (self.predicted(model, logits, there) == tags)).sum(dtype=jnp.float32)
        accuracy = (right, there.sum(dtype=jnp.float32))
        return LossOutput(total, weight, {"nats": (total, weight), "accuracy": accuracy})


def _words_first(there: Bool[Array, "B T"]) -> tuple[Int[Array, "B T"], Int[Array, "B T"]]:
    """The order that brings the places of words to the front of each row, and the one that brings them back."""
    order = jnp.argsort(~there, axis=1, stable=True)
    return order, jnp.argsort(order, axis=1)


def _moved(x: Array, order: Int[Array, "B T"]) -> Array:
    """The places of each row in an order, (B, T, ...)."""
    return jnp.take_along_axis(x, order.reshape(order.shape + (1,) * (x.ndim - 2)), axis=1)
