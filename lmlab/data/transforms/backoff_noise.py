"""Data noising as smoothing (Xie et al. 2017, arXiv:1703.02573): words replaced as n-gram smoothing would."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import Any, ClassVar, Literal

import numpy as np

from lmlab.data.transforms.fields import inputs, with_words
from lmlab.errors import DataError
from lmlab.ranges import Fraction
from lmlab.registry import transforms

BLANK = "_"


@dataclass(frozen=True, eq=False)
class Noise:
    """What the training words come to.

    Args:
      rates: how likely each word is replaced, in [0, 1], relative to the scheme's rate; others are not replaced.
      proposals: the words that are drawn, sorted.
      cumulative: of their probabilities, (len(proposals),) float64, ending at 1.
    """

    rates: Mapping[str, float]
    proposals: tuple[str, ...]
    cumulative: np.ndarray

    @classmethod
    def of(cls, rates: Mapping[str, float], counts: Mapping[str, int]) -> Noise:
        """Words drawn in proportion to `counts`."""
        proposals = tuple(sorted(counts))
        cumulative = np.cumsum([counts[word] for word in proposals], dtype=np.float64)
        return cls(rates, proposals, cumulative / cumulative[-1])

    def draw(self, rng: np.random.Generator) -> str:
        """One of the proposals."""
        return self.proposals[int(np.searchsorted(self.cumulative, rng.random(), side="right"))]


@transforms.register("backoff_noise")
@dataclass(frozen=True)
class BackoffNoise:
    """Replaces words at random, as the smoothing of n-gram models does (table 1 of the paper).

    `blank` and `unigram` are the analogues of interpolation: every word with probability γ by `_`, or by one drawn by
    its frequency, q(x) = c(x)/n. `bigram` is that of Kneser-Ney: a word x with probability γ·N1+(x,•)/c(x,•), so that
    words which go before many others are noised most, by one drawn by how many it follows, q(x) = N1+(•,x)/N1+(•,•).
    N1+ counts different bigrams; bigrams are counted within the lines of the training examples.

    The paper noises what the model reads, and what it predicts with `bigram` only. Here the text is noised before
    anything is read or predicted, so that a language model also predicts the noised words, with every scheme.

    Args:
      scheme: one of the three.
      rate: γ.
    """

    random: ClassVar[bool] = True

    scheme: Literal["unigram", "bigram", "blank"] = "unigram"
    rate: Fraction = 0.1
    noise: Noise | None = field(default=None, init=False, repr=False, compare=False)

    def fit(self, examples: Iterable[Any]) -> BackoffNoise:
        """This transform with counts of the training examples; DataError where there are no words (or bigrams)."""
        counted = Counter(pair for line in _lines(examples) for pair in pairwise(("", *line, "")))
        bigrams = {pair: count for pair, count in counted.items() if "" not in pair}
        counts = Counter[str]()
        for (_, word), count in counted.items():
            counts[word] += count
        del counts[""]  # the end of a line
        if not counts or (self.scheme == "bigram" and not bigrams):
            raise DataError("backoff_noise: there are no words in the training examples to count.")
        found = replace(self)
        object.__setattr__(found, "noise", _kneser_ney(bigrams) if self.scheme == "bigram" else Noise.of({}, counts))
        return found

    def __call__(self, example: Any, rng: np.random.Generator) -> Any | None:
        """The example with noise in it; ValueError before `fit`."""
        noise = self.noise
        if noise is None:
            raise ValueError("backoff_noise must be fitted to training examples first")

        def edit(words: Sequence[str], movable: Sequence[bool]) -> list[tuple[int, str]]:
            rates = np.array([1.0 if self.scheme != "bigram" else noise.rates.get(word, 0.0) for word in words])
            chosen = rng.random(len(words)) < self.rate * rates
            return [(place, self._other(noise, rng) if chosen[place] else word) for place, word in enumerate(words)]

        return with_words(example, edit, "backoff_noise")

    def _other(self, noise: Noise, rng: np.random.Generator) -> str:
        return BLANK if self.scheme == "blank" else noise.draw(rng)


def _kneser_ney(bigrams: Mapping[tuple[str, str], int]) -> Noise:
    followers, before, counts = Counter[str](), Counter[str](), Counter[str]()
    for (one, other), count in bigrams.items():
        followers[one] += 1
        before[other] += 1
        counts[one] += count
    return Noise.of({word: followers[word] / counts[word] for word in counts}, before)


def _lines(examples: Iterable[Any]) -> Iterator[list[str]]:
    """The words of every line of the texts that would be noised."""
    for example in examples:
        for text in inputs(example, "backoff_noise"):
            yield from (line.split() for line in text.split("\n") if line.strip())
