"""Answers to questions as SQuAD's scripts score them.

Rajpurkar et al. 2016 (arXiv:1606.05250, section 6.1) and, where there may be no answer, 2018 (arXiv:1806.03822).
"""

from __future__ import annotations

import re
import string
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

from lmlab.evaluation.metrics.totals import Mean, counted

_ARTICLES = re.compile(r"\b(a|an|the)\b")
_PUNCTUATION = dict.fromkeys(map(ord, string.punctuation))


@dataclass
class Squad:
    """Exact match and F1 over words, of the accepted answer that fits best, from 0 to 100: `exact_match/squad-1.1`.

    In version 2.0 a question without accepted answers is answered right by the empty text only, and there are the
    same numbers over the questions that have an answer (`.../squad-2.0-has-answer`) and over those that have none
    (`-no-answer`). In version 1.1 every question has one; F1 between two texts without words is then 0, not 1.

    Args:
      version: which script.
      means: by name.
    """

    version: Literal["1.1", "2.0"] = "1.1"
    means: dict[str, Mean] = field(default_factory=dict)

    def add(
        self,
        predictions: Sequence[str],
        answers: Sequence[Sequence[str]],
        weights: Sequence[float] | None = None,
    ) -> None:
        """Counts answers, each against the accepted ones; only those of a weight above 0 count.

        Raises:
          ValueError: there is no accepted answer, in version 1.1.
        """
        for prediction, accepted in counted(weights, predictions, answers):
            if isinstance(accepted, str) or (not accepted and self.version == "1.1"):
                raise ValueError("every prediction needs a sequence of accepted answers; squad-1.1 at least one")
            self._count(prediction, accepted)

    def _count(self, prediction: str, accepted: Sequence[str]) -> None:
        groups = [""]
        if self.version == "2.0":
            groups.append("-has-answer" if accepted else "-no-answer")
            accepted = [answer for answer in accepted if normalized(answer)] or [""]
        exact = max(normalized(prediction) == normalized(answer) for answer in accepted)
        f1 = max(word_f1(prediction, answer, self.version == "2.0") for answer in accepted)
        for group in groups:
            for name, value in (("exact_match", exact), ("f1", f1)):
                self.means.setdefault(f"{name}/squad-{self.version}{group}", Mean()).add(value)

    def merge(self, other: Squad) -> None:
        """Counts what another has counted."""
        for name, mean in other.means.items():
            self.means.setdefault(name, Mean()).merge(mean)

    def result(self) -> dict[str, float]:
        """Exact match and F1."""
        return {key: value for name, mean in self.means.items() for key, value in mean.named(name, 100).items()}


def normalized(answer: str) -> str:
    """Without case, ASCII punctuation and articles, with single spaces.

    Example: "The  Beatles' (2nd) album" → "beatles 2nd album".
    """
    return " ".join(_ARTICLES.sub(" ", answer.lower().translate(_PUNCTUATION)).split())


def word_f1(prediction: str, answer: str, empty_is_right: bool) -> float:
    """F1 over the words of two normalised texts; where one has no words, whether the other has none either.

    Args:
      prediction, answer: texts.
      empty_is_right: two texts without words agree (SQuAD 2.0); else they score 0 (SQuAD 1.1).
    """
    ours, theirs = normalized(prediction).split(), normalized(answer).split()
    if not ours or not theirs:
        return float(empty_is_right and ours == theirs)
    both = (Counter(ours) & Counter(theirs)).total()
    if both == 0:
        return 0.0
    precision, recall = both / len(ours), both / len(theirs)
    return 2 * precision * recall / (precision + recall)
