"""ROUGE (Lin 2004) through rouge-score, the implementation that the T5 and PEGASUS papers report."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from lmlab.evaluation.metrics.totals import Mean, counted, library

KINDS = ("rouge1", "rouge2", "rougeL")


@dataclass
class Rouge:
    """ROUGE-1, ROUGE-2 and ROUGE-L: means over texts, from 0 to 1: `rouge1/f1-rouge-score` and so on.

    Words are runs of a-z and 0-9 in lower case, as rouge-score has them. With several references the one with the
    best F1 counts, kind by kind.

    Args:
      stemmer: Porter's stemmer on words of more than three letters; the names then end in `-stem`.
      means: by name.

    Raises:
      ConfigError: rouge-score is not installed.
    """

    stemmer: bool = False
    means: dict[str, Mean] = field(default_factory=dict)

    def __post_init__(self) -> None:
        _scorer(self.stemmer)

    def add(
        self,
        hypotheses: Sequence[str],
        references: Sequence[Sequence[str]],
        weights: Sequence[float] | None = None,
    ) -> None:
        """Counts texts, each against its references; only those of a weight above 0 count."""
        scorer, suffix = _scorer(self.stemmer), "-stem" if self.stemmer else ""
        for hypothesis, accepted in counted(weights, hypotheses, references):
            if not accepted or isinstance(accepted, str):
                raise ValueError("every hypothesis needs a sequence of references")
            for kind, score in scorer.score_multi(list(accepted), hypothesis).items():
                numbers = {"f1": score.fmeasure, "precision": score.precision, "recall": score.recall}
                for measure, value in numbers.items():
                    self.means.setdefault(f"{kind}/{measure}-rouge-score{suffix}", Mean()).add(value)

    def merge(self, other: Rouge) -> None:
        """Counts what another has counted."""
        for name, mean in other.means.items():
            self.means.setdefault(name, Mean()).merge(mean)

    def result(self) -> dict[str, float]:
        """F1, precision and recall of every kind."""
        return {key: value for name, mean in self.means.items() for key, value in mean.named(name).items()}


@functools.cache
def _scorer(stemmer: bool) -> Any:
    return library("rouge_score.rouge_scorer", "ROUGE").RougeScorer(KINDS, use_stemmer=stemmer)
