"""Labels of texts, and tags of words, against gold ones: accuracy, and scikit-learn's precision, recall and F1."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from lmlab.evaluation.metrics.totals import library, ratio

UNSEEN = -1
"""The id of a gold label that no training example has (see `features.Setting.unseen_label`). No model predicts it."""


@dataclass
class Accuracy:
    """The share of predictions that are right: `accuracy`; for tags, of words, whatever their sentence.

    Args:
      name: of the number, for example `accuracy/word`.
      right: predictions that were right.
      total: predictions.
    """

    name: str = "accuracy"
    right: int = 0
    total: int = 0

    def add(self, gold: Any, predicted: Any, weights: Any = None) -> None:
        """Counts ids against ids, arrays of one shape; only those of a weight above 0 count."""
        gold, predicted = _counted(gold, predicted, weights)
        self.right += int(np.count_nonzero(gold == predicted))
        self.total += len(gold)

    def merge(self, other: Accuracy) -> None:
        """Counts what another has counted."""
        self.right += other.right
        self.total += other.total

    def result(self) -> dict[str, float]:
        """The share under `name`."""
        return {self.name: self.right / self.total} if self.total else {}


@dataclass
class Classification:
    """Accuracy, and precision, recall and F1 by scikit-learn, from a confusion matrix.

    `f1/macro` is the mean over the labels that occur, in the gold labels or in the predictions, as in scikit-learn,
    where a label for which a ratio has no denominator counts as 0 (`zero_division=0`). An unseen gold label (-1) is
    an error: a label of its own that is never found. With one label to each text `f1/micro` is the accuracy.

    Args:
      labels: number of labels, C.
      confusion: how often (gold, predicted) occurred, (C + 1, C) int64; the last row is for unseen gold labels.

    Raises:
      ConfigError: scikit-learn is not installed.
    """

    labels: int
    confusion: np.ndarray = field(init=False)

    def __post_init__(self) -> None:
        library("sklearn.metrics", "f1")  # better missed now than after the first evaluation
        self.confusion = np.zeros((self.labels + 1, self.labels), np.int64)

    def add(self, gold: Any, predicted: Any, weights: Any = None) -> None:
        """Counts ids against ids, arrays of one shape; only those of a weight above 0 count.

        Raises:
          ValueError: an id is none of the labels'.
        """
        gold, predicted = _counted(gold, predicted, weights)
        for ids, least in ((gold, UNSEEN), (predicted, 0)):
            if len(ids) and not (ids.min() >= least and ids.max() < self.labels):
                raise ValueError(f"ids of labels must be below {self.labels}, and only a gold one may be -1")
        np.add.at(self.confusion, (gold, predicted), 1)  # row -1 is the last one

    def merge(self, other: Classification) -> None:
        """Counts what another has counted."""
        self.confusion += other.confusion

    def result(self) -> dict[str, float]:
        """`accuracy`, and `precision`, `recall` and `f1`, each `/micro` and `/macro`."""
        gold, predicted = np.nonzero(self.confusion)
        if not len(gold):
            return {}
        counts = self.confusion[gold, predicted]
        gold = np.where(gold == self.labels, UNSEEN, gold)
        found = {"accuracy": ratio(int(counts[gold == predicted].sum()), int(counts.sum()))}
        measure = library("sklearn.metrics", "f1").precision_recall_fscore_support
        for average in ("micro", "macro"):
            numbers = measure(gold, predicted, sample_weight=counts, average=average, zero_division=0)
            names = (f"{name}/{average}" for name in ("precision", "recall", "f1"))
            found |= dict(zip(names, map(float, numbers[:3]), strict=True))
        return found


def _counted(gold: Any, predicted: Any, weights: Any) -> tuple[np.ndarray, np.ndarray]:
    """The ids that count, 1-d each."""
    gold, predicted = np.asarray(gold), np.asarray(predicted)
    there = np.ones(gold.shape, bool) if weights is None else np.asarray(weights) > 0
    if not gold.shape == predicted.shape == there.shape:
        raise ValueError(f"shapes differ: gold {gold.shape}, predicted {predicted.shape}, weights {there.shape}")
    return gold[there], predicted[there]
