"""Preprocessing, the same in every split: case, Unicode forms, stop words."""

from __future__ import annotations

import functools
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from lmlab.data.transforms.fields import INPUTS, TEXTS, with_texts, with_words
from lmlab.errors import DataError
from lmlab.registry import transforms

_ENGLISH = """
a an the this that these those each every either neither some any no all both such
i me my mine myself you your yours yourself yourselves he him his himself she her hers herself it its itself
we us our ours ourselves they them their theirs themselves who whom whose which what
am is are was were be been being have has had having do does did will would shall should can could may might must
of in on at by for with from to into onto upon over under about against between among through during before after
above below up down out off within without toward towards since until
and or but nor so yet if because as than though although while whereas unless whether when where why how
not there here then
"""
ENGLISH = frozenset(_ENGLISH.split())
"""Closed-class words of English (Quirk et al. 1985, section 2.39): determiners, pronouns, auxiliaries, prepositions,
conjunctions, and a few adverbs of that kind; written down for lmlab."""


@transforms.register("lowercase")
@dataclass(frozen=True)
class Lowercase:
    """All letters in lower case, by Unicode's rules.

    Args:
      targets: also in the second text of a pair.
    """

    targets: bool = True

    def __call__(self, example: Any, rng: np.random.Generator) -> Any | None:
        """The example in lower case."""
        return with_texts(example, str.lower, "lowercase", TEXTS if self.targets else INPUTS)


@transforms.register("unicode_normalize")
@dataclass(frozen=True)
class UnicodeNormalize:
    """One spelling for what looks alike: a normalisation form of Unicode (Standard Annex 15).

    Args:
      form: NFC composes, NFD takes apart; NFKC and NFKD also replace compatibility characters (`ﬁ` by `fi`).
    """

    form: Literal["NFC", "NFD", "NFKC", "NFKD"] = "NFC"

    def __call__(self, example: Any, rng: np.random.Generator) -> Any | None:
        """The example in this form."""
        return with_texts(example, lambda text: unicodedata.normalize(self.form, text), "unicode_normalize")


@transforms.register("stop_words")
@dataclass(frozen=True)
class StopWords:
    """Leaves out stop words: words (between white space) that are in a list, whatever their case.

    Args:
      words: `english` (closed-class words), or a file with one word a line.
    """

    words: str = "english"

    def __call__(self, example: Any, rng: np.random.Generator) -> Any | None:
        """The example without them; None where nothing else is in it."""
        return with_words(example, self._kept, "stop_words")

    def _kept(self, words: Sequence[str], movable: Sequence[bool]) -> list[tuple[int, str]]:
        return [(place, word) for place, word in enumerate(words) if word.lower() not in self._listed]

    @functools.cached_property
    def _listed(self) -> frozenset[str]:
        if self.words == "english":
            return ENGLISH
        try:
            lines = Path(self.words).expanduser().read_text(encoding="utf-8").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            raise DataError(f"stop_words.words: '{self.words}': {error}. Name a file, or 'english'.") from None
        return frozenset(line.strip().lower() for line in lines if line.strip())
