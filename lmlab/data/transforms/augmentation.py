"""Augmentation of training examples by easy edits of their words (Wei & Zou 2019, arXiv:1901.11196)."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from lmlab.data.transforms.fields import with_words
from lmlab.errors import DataError
from lmlab.ranges import Fraction, ProperFraction
from lmlab.registry import transforms


@transforms.register("random_deletion")
@dataclass(frozen=True)
class RandomDeletion:
    """Leaves out every word with a probability, independently; one word, drawn at random, always stays.

    Args:
      rate: the probability.
    """

    random: ClassVar[bool] = True

    rate: ProperFraction = 0.1

    def __call__(self, example: Any, rng: np.random.Generator) -> Any | None:
        """The example without some of its words."""

        def edit(words: Sequence[str], movable: Sequence[bool]) -> list[tuple[int, str]]:
            kept = rng.random(len(words)) >= self.rate
            if not kept.any():
                kept[rng.integers(len(words))] = True
            return [(place, word) for place, word in enumerate(words) if kept[place]]

        return with_words(example, edit, "random_deletion")


@transforms.register("random_swap")
@dataclass(frozen=True)
class RandomSwap:
    """Swaps two words, several times over; in tagged text with their tags, and none that are in a BIO span.

    Args:
      rate: swaps per word; their number is rounded to the nearest, but is at least one where the rate is not 0.
    """

    random: ClassVar[bool] = True

    rate: Fraction = 0.1

    def __call__(self, example: Any, rng: np.random.Generator) -> Any | None:
        """The example with its words in another order."""

        def edit(words: Sequence[str], movable: Sequence[bool]) -> list[tuple[int, str]]:
            found = list(enumerate(words))
            places = np.flatnonzero(movable)
            swaps = max(round(self.rate * len(words)), 1) if self.rate and len(places) > 1 else 0
            for _ in range(swaps):
                one, other = rng.choice(places, 2, replace=False)
                found[one], found[other] = found[other], found[one]
            return found

        return with_words(example, edit, "random_swap", moves=True)


@transforms.register("synonyms")
@dataclass(frozen=True)
class Synonyms:
    """Replaces words by synonyms from a table of the user's, each with a probability, independently.

    A line of the table is a word and its synonyms, with tabs between; a synonym is one word. Case and the punctuation
    around a word stay: of `Big,` and the line `big<tab>large` comes `Large,`.

    Args:
      table: the file, UTF-8.
      rate: the probability for a word that is in the table.
    """

    random: ClassVar[bool] = True
    TINY: ClassVar[str] = "synonyms.table = '{folder}/synonyms.tsv'"

    table: str
    rate: Fraction = 0.1

    def __call__(self, example: Any, rng: np.random.Generator) -> Any | None:
        """The example with other words."""

        def edit(words: Sequence[str], movable: Sequence[bool]) -> list[tuple[int, str]]:
            chosen = rng.random(len(words)) < self.rate
            return [(place, self._other(word, rng) if chosen[place] else word) for place, word in enumerate(words)]

        return with_words(example, edit, "synonyms")

    def _other(self, word: str, rng: np.random.Generator) -> str:
        start = next((i for i, letter in enumerate(word) if letter.isalnum()), 0)
        stop = next((i for i in range(len(word), start, -1) if word[i - 1].isalnum()), start)
        core = word[start:stop]
        others = self._table.get(core.lower())
        if others is None:
            return word
        other = others[rng.integers(len(others))]
        if core[0].isupper():
            other = other.upper() if core.isupper() and len(core) > 1 else other[0].upper() + other[1:]
        return f"{word[:start]}{other}{word[stop:]}"

    @functools.cached_property
    def _table(self) -> Mapping[str, tuple[str, ...]]:
        try:
            lines = Path(self.table).expanduser().read_text(encoding="utf-8").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            raise DataError(f"synonyms.table: '{self.table}': {error}. Name a file of tab-separated words.") from None
        found: dict[str, tuple[str, ...]] = {}
        for number, line in enumerate(lines, 1):
            word, *others = (cell.strip() for cell in line.split("\t"))
            if not line.strip():
                continue
            if not others or any(len(cell.split()) != 1 for cell in (word, *others)):
                raise DataError(f"{self.table}:{number}: not a word, a tab and its synonyms, each one word: '{line}'.")
            found[word.lower()] = (*found.get(word.lower(), ()), *others)
        return found
