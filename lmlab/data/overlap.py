"""How much of a validation or test split stands in the training split too."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from typing import Any

import numpy as np

from lmlab.contracts import Dataset
from lmlab.data.transforms.fields import INPUTS, inputs
from lmlab.errors import ConfigError, DataError

_DROPPED = re.compile(r"[^\w\s]|_")


@dataclass(frozen=True)
class Overlap:
    """What a split shares with the training split; only texts that a model is given count, not what it predicts.

    Args:
      split: which.
      examples: in it.
      exact: those whose texts are, letter by letter, those of a training example.
      touched: those of which at least one n-gram of words stands in a training example.
      short: those with fewer than n words, of which n-grams say nothing.
      grams: n-grams of words in the split, repetitions counted.
      shared: those of them that stand in the training split.
    """

    split: str
    examples: int
    exact: int
    touched: int
    short: int
    grams: int
    shared: int


def overlaps(dataset: Dataset, n: int = 13) -> list[Overlap]:
    """The overlap of validation and test split with the training split, in n-grams of words.

    GPT-3's rule (Brown et al. 2020, arXiv:2005.14165, appendix C) is n = 13: an example is suspect if any of its
    13-grams occurs in training. Words are compared in lower case and without punctuation.

    Raises:
      ConfigError: the dataset holds no text.
    """
    if dataset.example not in INPUTS:
        raise ConfigError(f"the dataset yields {dataset.example.__name__}, not text: there are no words to compare.")
    training = dataset.split("train")
    hashes = _WordHashes(n)
    exact = {_texts(example) for example in training}
    grams = _union(hashes.grams(example) for example in training)
    return [_compared(name, examples, exact, grams, hashes) for name, examples in _others(dataset)]


def _others(dataset: Dataset) -> Iterable[tuple[str, Sequence[Any]]]:
    for name in ("valid", "test"):
        try:
            yield name, dataset.split(name)
        except DataError:
            continue  # a split that is not there shares nothing


def _compared(
    name: str, examples: Sequence[Any], exact: set[tuple[str, ...]], grams: np.ndarray, hashes: _WordHashes
) -> Overlap:
    same = touched = short = total = shared = 0
    for example in examples:
        found = hashes.grams(example)
        places = np.searchsorted(grams, found)
        there = int(np.count_nonzero(grams[np.minimum(places, len(grams) - 1)] == found)) if len(grams) else 0
        same += _texts(example) in exact
        touched += there > 0
        short += len(found) == 0
        total += len(found)
        shared += there
    return Overlap(name, len(examples), same, touched, short, total, shared)


def _texts(example: Any) -> tuple[str, ...]:
    return tuple(inputs(example, "overlap"))


class _WordHashes:
    """64-bit hashes of n-grams: sums of the words' own hashes, each times an odd number that belongs to its place."""

    def __init__(self, n: int) -> None:
        self._n = n
        self._places = np.random.Generator(np.random.PCG64(n)).integers(0, 2**63, n, np.uint64) * np.uint64(2)
        self._places += np.uint64(1)
        self._words: dict[str, int] = {}

    def grams(self, example: Any) -> np.ndarray:
        """One hash for every n-gram of each text of the example, repetitions included."""
        return np.concatenate([self._of(text) for text in _texts(example)] or [np.zeros(0, np.uint64)])

    def _of(self, text: str) -> np.ndarray:
        words = np.array([self._word(word) for word in _DROPPED.sub("", text.lower()).split()], np.uint64)
        if len(words) < self._n:
            return np.zeros(0, np.uint64)
        windows = np.lib.stride_tricks.sliding_window_view(words, self._n)
        return (windows * self._places).sum(axis=1, dtype=np.uint64)

    def _word(self, word: str) -> int:
        if word not in self._words:
            self._words[word] = int.from_bytes(blake2b(word.encode(), digest_size=8).digest(), "little")
        return self._words[word]


def _union(parts: Iterable[np.ndarray]) -> np.ndarray:
    """What is in any of the arrays, sorted."""
    found = list(parts)
    return np.unique(np.concatenate(found)) if found else np.zeros(0, np.uint64)
