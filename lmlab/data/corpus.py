"""Documents in named splits: what every text dataset reads itself into."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from lmlab.contracts import Text
from lmlab.data.fingerprints import digest
from lmlab.errors import DataError

SPLITS = ("train", "valid", "test")


def split_of(key: str | bytes, valid: float = 0.05, test: float = 0.05) -> str:
    """`train`, `valid` or `test`, from the md5 of `key` alone.

    A document's split thus does not depend on the other documents, and two documents with one key are
    never on two sides. `valid` and `test` are the shares of all keys, resolved to 1/10,000.
    """
    data = key.encode() if isinstance(key, str) else key
    place = int.from_bytes(hashlib.md5(data, usedforsecurity=False).digest()[:8], "big") % 10_000
    if place < round(10_000 * valid):
        return "valid"
    return "test" if place < round(10_000 * (valid + test)) else "train"


@dataclass(frozen=True)
class Corpus:
    """The documents of every split, in their order; empty documents are left out.

    Args:
      name: the dataset's name, for messages.
      splits: the documents by split; a split that was not asked for is not there.
      without: what to do about a split that is missing or empty, for messages.
    """

    name: str
    splits: Mapping[str, tuple[Text, ...]]
    without: str

    @classmethod
    def of(cls, name: str, documents: Iterable[tuple[str, Text]], without: str) -> Corpus:
        """Gathers (split, document) pairs; DataError if no document has any text."""
        splits: dict[str, list[Text]] = {}
        for split, document in documents:
            if document.text:
                splits.setdefault(split, []).append(document)
        if not splits:
            raise DataError(f"{name}: there is no text in it. {without}")
        return cls(name, {split: tuple(found) for split, found in splits.items()}, without)

    def split(self, name: str) -> tuple[Text, ...]:
        """The documents of a split; DataError where there are none."""
        if not self.splits.get(name):
            there = ", ".join(f"{split} ({len(self.splits[split])})" for split in SPLITS if self.splits.get(split))
            raise DataError(f"{self.name}: no documents in the split '{name}'; there is {there}. {self.without}")
        return self.splits[name]

    def fingerprint(self) -> dict[str, Any]:
        """Number of documents, bytes of UTF-8 and sha256 of every split."""
        return {split: self._facts(self.splits[split]) for split in SPLITS if self.splits.get(split)}

    @staticmethod
    def _facts(documents: tuple[Text, ...]) -> dict[str, Any]:
        contents = [document.text.encode() for document in documents]
        return {"documents": len(contents), "bytes": sum(map(len, contents)), "sha256": digest(contents)}
