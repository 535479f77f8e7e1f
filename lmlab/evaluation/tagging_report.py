"""How well words are tagged, and the sentences that they stand in labelled."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from lmlab.contracts import TagBatch
from lmlab.evaluation.classification_report import check_scores
from lmlab.evaluation.metrics.classification import Accuracy
from lmlab.evaluation.metrics.spans import SpanF1, spans
from lmlab.evaluation.split_sums import SplitRows
from lmlab.ranges import Count
from lmlab.registry import evaluators

if TYPE_CHECKING:
    from jaxtyping import Array

    from lmlab.nn.functional import Params
    from lmlab.training.program import Program
    from lmlab.training.state import State

UNSEEN = "I-(unseen)"
"""What stands for a gold tag that no training example has: neighbouring ones are a span, which no model finds."""


@evaluators.register("tagging_report")
@dataclass(frozen=True)
class TaggingReport:
    """F1 of spans where the tags are BIO, accuracy per word and, where sentences have labels, of these.

    Words that a row has no room for are not counted. Of a gold tag that training does not have, the batch does not tell
    the name: neighbouring words with such count as one span, of a type that is never found.

    Metrics, each named `<split>/...`: `precision/seqeval`, `recall/seqeval`, `f1/seqeval` and these with `-macro`, as
    `metrics.spans` has them; `accuracy/word`; `accuracy/label`; `exact_match/tags`, the share of sentences with every
    tag right, and `exact_match/frame`, with the label right too.

    Args:
      split: which part of the data.
      batches: how many global batches, evenly over the split; None is all of them.
    """

    TINY: ClassVar[str] = """
    experiment.loss = @tagging
    tagging_report.batches = 2
    """

    split: str = "valid"
    batches: Count | None = None

    def bind(self, program: Program) -> Callable[[State], Mapping[str, float]]:
        """The measurement of a running state; compiled when it is first called.

        Raises:
          ConfigError: the loss does not score tags.
          DataError: the dataset has no such split.
        """
        loss, names = check_scores(program, TagBatch, "tagging_report"), program.data.tags

        def rows(params: Params, batch: Mapping[str, Array]) -> dict[str, Any]:
            model, there = program.model.bind(params), batch["weights"] > 0
            tag_scores, label_scores = loss.scores(model, batch)
            found = {"gold": batch["tags"], "there": there, "tags": loss.predicted(model, tag_scores, there)}
            if label_scores is None:
                return found
            return {**found, "gold_labels": batch["labels"], "labels": label_scores.argmax(-1)}

        by_row = SplitRows(program, self.split, self.batches, rows)

        def measure(state: State) -> dict[str, float]:
            totals = Totals(names)
            for part in by_row.parts(state):
                totals.add(part)
            return {f"{self.split}/{name}": value for name, value in totals.result().items()}

        return measure


class Totals:
    """The report's sums.

    Args:
      names: of the tags, by id.
    """

    def __init__(self, names: tuple[str, ...]) -> None:
        self._names = np.array([*names, UNSEEN])
        self._spans = SpanF1() if _are_bio(names) else None
        means = ("accuracy/word", "accuracy/label", "exact_match/tags", "exact_match/frame")
        self._means = [Accuracy(name) for name in means]

    def add(self, rows: Mapping[str, np.ndarray]) -> None:
        """Counts the rows of a batch; those without words are no sentences."""
        gold, tags, there = rows["gold"], rows["tags"], rows["there"]
        words, labels, sentences, frames = self._means
        words.add(gold, tags, there)
        is_sentence = there.any(1)
        right = ((gold == tags) | ~there).all(1)
        sentences.add(np.ones_like(right), right, is_sentence)
        if "labels" in rows:
            labels.add(rows["gold_labels"], rows["labels"], is_sentence)
            both = right & (rows["gold_labels"] == rows["labels"])
            frames.add(np.ones_like(both), both, is_sentence)
        if self._spans is not None:
            theirs, ours = (self._sentences(ids, there) for ids in (gold, tags))
            self._spans.add(theirs, ours, np.asarray(is_sentence, float).tolist())

    def result(self) -> dict[str, float]:
        """The metrics; those of what does not occur are left out."""
        found = {} if self._spans is None else self._spans.result()
        for mean in self._means:
            found |= mean.result()
        return found

    def _sentences(self, ids: np.ndarray, there: np.ndarray) -> list[list[str]]:
        """The names of the tags of each row's words."""
        return [self._names[row[words]].tolist() for row, words in zip(ids, there, strict=True)]


def _are_bio(names: tuple[str, ...]) -> bool:
    try:
        return bool(list(spans(names)))
    except ValueError:
        return False
