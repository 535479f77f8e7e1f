"""Whether a model is right as often as it says: expected calibration error, Brier score, temperature scaling."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from lmlab.errors import NonFiniteError
from lmlab.evaluation.metrics.totals import Mean

BINS = 15
"""As in Guo et al. 2017."""


@dataclass
class Calibration:
    """ECE over bins of equal width (Guo et al. 2017, arXiv:1706.04599, equations 2 and 3), Brier score and nats.

    A prediction is the most probable class, its confidence the probability of that. ECE is the mean over predictions
    of |accuracy - confidence| of their bin; bin m of M holds confidences in ((m - 1)/M, m/M]. The Brier score is the
    mean over predictions of the sum over classes of (p - 1 or 0)^2, from 0 to 2.

    Args:
      bins: M.
      right: predictions that were right, by bin.
      count: predictions, by bin.
      confidence: their confidences, by bin.
      brier, nats: means.
    """

    bins: int = BINS
    right: np.ndarray = field(init=False)
    count: np.ndarray = field(init=False)
    confidence: list[Mean] = field(init=False)
    brier: Mean = field(default_factory=Mean)
    nats: Mean = field(default_factory=Mean)

    def __post_init__(self) -> None:
        self.right, self.count = np.zeros((2, self.bins), np.int64)
        self.confidence = [Mean() for _ in range(self.bins)]

    def add(self, confidence: Any, right: Any, brier: Any = (), nats: Any = ()) -> None:
        """Counts predictions: arrays (N,) of probabilities in [0, 1] and of whether each was right.

        Args:
          confidence: of each prediction.
          right: whether it was.
          brier, nats: of each, where these are known; infinite nats are left out.

        Raises:
          NonFiniteError: a confidence is no number.
        """
        confidence, right = np.asarray(confidence, np.float64), np.asarray(right, bool)
        if np.isnan(confidence).any():
            raise NonFiniteError(f"calibration: {int(np.isnan(confidence).sum())} of the model's confidences are NaN.")
        place = np.clip(np.ceil(confidence * self.bins).astype(int) - 1, 0, self.bins - 1)
        np.add.at(self.right, place, right)
        np.add.at(self.count, place, 1)
        for m in np.unique(place).tolist():
            self.confidence[m].add_all(confidence[place == m].tolist())
        for mean, values in ((self.brier, brier), (self.nats, nats)):
            known = np.asarray(values, np.float64)
            mean.add_all(known[np.isfinite(known)].tolist())

    def merge(self, other: Calibration) -> None:
        """Counts what another has counted, with as many bins."""
        self.right += other.right
        self.count += other.count
        for mean, more in zip((*self.confidence, self.brier, self.nats),
                              (*other.confidence, other.brier, other.nats), strict=True):  # fmt: skip
            mean.merge(more)

    def result(self) -> dict[str, float]:
        """`ece/bins-15`, `accuracy`, `confidence` (its mean), `brier` and `nats`."""
        total = int(self.count.sum())
        if not total:
            return {}
        sums = np.array([float(mean.total) for mean in self.confidence])
        found = {
            f"ece/bins-{self.bins}": float(np.abs(self.right - sums).sum()) / total,
            "accuracy": int(self.right.sum()) / total,
            "confidence": float(sums.sum()) / total,
        }
        return found | self.brier.named("brier") | self.nats.named("nats")


def of_scores(scores: np.ndarray, gold: np.ndarray) -> dict[str, np.ndarray]:
    """What `Calibration.add` counts, of scores (N, C) and gold classes (N,), of which -1 is none of them; float64.

    What has such a gold class is wrong, has a Brier score of 1 and the sum of squares, and infinite nats.
    """
    log_p = log_probabilities(scores)
    p, there = np.exp(log_p), gold >= 0
    own = np.take_along_axis(log_p, np.maximum(gold, 0)[:, None], axis=1)[:, 0]
    of_gold = np.where(there, np.exp(own), 0.0)
    return {
        "confidence": p.max(1),
        "right": (p.argmax(1) == gold),
        "brier": (p**2).sum(1) - 2 * of_gold + 1,
        "nats": np.where(there, -own, np.inf),
    }


def fitted_temperature(scores: np.ndarray, gold: np.ndarray) -> float:
    """The temperature that scores are divided by for the least mean nats (Guo et al. 2017, section 4.2).

    The nats are convex in 1/T; where their derivative keeps its sign, as where every prediction is right, it is the
    end of the range from 0.01 to 100 that is meant.

    Args:
      scores: (N, C).
      gold: (N,); those below 0 do not count.
    """
    scores, gold = np.asarray(scores, np.float64)[gold >= 0], gold[gold >= 0]
    own = np.take_along_axis(scores, gold[:, None], axis=1)[:, 0]

    def slope(inverse: float) -> float:
        return float(((np.exp(log_probabilities(scores * inverse)) * scores).sum(1) - own).mean())

    low, high = 0.01, 100.0
    for _ in range(100):
        middle = np.sqrt(low * high)
        low, high = (low, middle) if slope(middle) > 0 else (middle, high)
    return float(1 / np.sqrt(low * high))


def log_probabilities(scores: np.ndarray) -> np.ndarray:
    """Log softmax over the last axis, float64."""
    scores = np.asarray(scores, np.float64)
    shifted = scores - scores.max(-1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(-1, keepdims=True))
