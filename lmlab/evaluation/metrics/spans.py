"""Spans in BIO tags (slots, entities, phrases, semantic roles), counted as seqeval counts them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from lmlab.evaluation.metrics.totals import counted, ratio

Span = tuple[str, int, int]
"""Type, first word, and the word behind the last one."""


@dataclass
class SpanF1:
    """Precision, recall and F1 of spans: one is right where its type and both its edges are.

    `f1/seqeval` is seqeval's default: micro, over all spans, as conlleval counts them, where `I-x` without `x` before
    it begins a span too. `f1/seqeval-macro` is the mean over the types that occur, in gold or predicted. A ratio
    without denominator is 0. Give it the dataset's own tags: spans of types that training never saw are then missed,
    as they must be.

    Args:
      strict: only what begins with `B-` and goes on with `I-` of its type is a span; what is otherwise does not count
        (seqeval's `mode="strict", scheme=IOB2`). The names then have `seqeval-strict` in place of `seqeval`.
      right, gold, predicted: spans by type.
    """

    strict: bool = False
    right: Counter[str] = field(default_factory=Counter)
    gold: Counter[str] = field(default_factory=Counter)
    predicted: Counter[str] = field(default_factory=Counter)

    def add(
        self, gold: Sequence[Sequence[str]], predicted: Sequence[Sequence[str]], weights: Sequence[float] | None = None
    ) -> None:
        """Counts sentences of tags against sentences of tags; only those of a weight above 0 count.

        Raises:
          ValueError: a sentence has not as many predicted tags as gold ones, or a tag is not BIO.
        """
        for theirs, ours in counted(weights, gold, predicted):
            if len(theirs) != len(ours):
                raise ValueError(f"{len(ours)} predicted tags for {len(theirs)} words")
            there, found = set(spans(theirs, self.strict)), set(spans(ours, self.strict))
            for counts, what in ((self.right, there & found), (self.gold, there), (self.predicted, found)):
                counts.update(kind for kind, _, _ in what)

    def merge(self, other: SpanF1) -> None:
        """Counts what another has counted."""
        self.right.update(other.right)
        self.gold.update(other.gold)
        self.predicted.update(other.predicted)

    def result(self) -> dict[str, float]:
        """Precision, recall and F1, micro and macro; empty where neither gold nor predicted tags have any span."""
        kinds = sorted({*self.gold, *self.predicted})
        if not kinds:
            return {}
        name = "seqeval-strict" if self.strict else "seqeval"
        micro = _scores(self.right.total(), self.gold.total(), self.predicted.total())
        each = [_scores(self.right[kind], self.gold[kind], self.predicted[kind]) for kind in kinds]
        macro = [sum(column) / len(kinds) for column in zip(*each, strict=True)]
        measures = ("precision", "recall", "f1")
        return {
            **{f"{measure}/{name}": value for measure, value in zip(measures, micro, strict=True)},
            **{f"{measure}/{name}-macro": value for measure, value in zip(measures, macro, strict=True)},
        }


def _scores(right: int, gold: int, predicted: int) -> tuple[float, float, float]:
    precision, recall = ratio(right, predicted), ratio(right, gold)
    return precision, recall, ratio(2 * precision * recall, precision + recall)


def spans(tags: Sequence[str], strict: bool = False) -> Iterator[Span]:
    """The spans of one sentence, in their order; see `SpanF1` for what `strict` leaves out.

    Example: `B-city I-city O I-date I-time` → (city, 0, 2), (date, 3, 4), (time, 4, 5); strict only (city, 0, 2).

    Raises:
      ValueError: a tag is neither `O` nor begins with `B` or `I`.
    """
    kind, start, proper = "", -1, True
    for place, tag in enumerate((*tags, "O")):
        prefix, here = tag[:1], tag[1:].removeprefix("-") or "_"
        if prefix not in ("B", "I", "O") or (prefix == "O" and len(tag) > 1) or tag[1:2] not in ("", "-"):
            raise ValueError(f"'{tag}' is no BIO tag: O, B-type or I-type")
        if prefix == "I" and start >= 0 and here == kind:
            continue
        if start >= 0 and (proper or not strict):
            yield kind, start, place
        kind, start, proper = (here, place, prefix == "B") if prefix != "O" else ("", -1, True)
