"""Examples in named splits: what every dataset of text, of whatever example kind, reads itself into."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from lmlab.data.fingerprints import digest
from lmlab.errors import DataError
from lmlab.examples import Document, Text, texts_of

SPLITS = ("train", "valid", "test")

Example = TypeVar("Example")


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


def md5_modulo(key: str, buckets: int) -> int:
    """The md5 of `key`, read as one number, modulo `buckets`: the rule by which corpora without splits are split."""
    return int(hashlib.md5(key.encode(), usedforsecurity=False).hexdigest(), 16) % buckets


@dataclass(frozen=True)
class Corpus(Generic[Example]):
    """The examples of every split, in their order; those without any text are left out.

    Args:
      name: the dataset's name, for messages.
      splits: the examples by split; a split that was not asked for is not there.
      without: what to do about a split that is missing or empty, for messages.
    """

    name: str
    splits: Mapping[str, tuple[Example, ...]]
    without: str

    @classmethod
    def of(cls, name: str, examples: Iterable[tuple[str, Example]], without: str) -> Corpus[Example]:
        """Gathers (split, example) pairs; DataError if no example has any text."""
        splits: dict[str, list[Example]] = {}
        for split, example in examples:
            if any(texts_of(example)):
                splits.setdefault(split, []).append(example)
        if not splits:
            raise DataError(f"{name}: there is no text in it. {without}")
        return cls(name, {split: tuple(found) for split, found in splits.items()}, without)

    def split(self, name: str) -> tuple[Example, ...]:
        """The examples of a split; DataError where there are none."""
        if not self.splits.get(name):
            there = ", ".join(f"{split} ({len(self.splits[split])})" for split in SPLITS if self.splits.get(split))
            raise DataError(f"{self.name}: no documents in the split '{name}'; there is {there}. {self.without}")
        return self.splits[name]

    @property
    def labels(self) -> tuple[str, ...]:
        """The labels of the training split, sorted."""
        found = {getattr(example, "label", None) for example in self.split("train")}
        return tuple(sorted(label for label in found if label is not None))

    @property
    def tags(self) -> tuple[str, ...]:
        """The tags of the training split, sorted."""
        return tuple(sorted({tag for example in self.split("train") for tag in getattr(example, "tags", ())}))

    def fingerprint(self) -> dict[str, Any]:
        """Number of examples (of documents, where they are such), bytes of UTF-8 and sha256 of every split."""
        return {split: _facts(self.splits[split]) for split in SPLITS if self.splits.get(split)}


def _facts(examples: tuple[Any, ...]) -> dict[str, Any]:
    counted = "documents" if isinstance(examples[0], Text | Document) else "examples"
    size = sum(len(text.encode()) for example in examples for text in texts_of(example))
    return {counted: len(examples), "bytes": size, "sha256": digest(map(_content, examples))}


def _content(example: Any) -> bytes:
    """All that an example holds but the name of where it stands; of a `Text`, just the text."""
    if isinstance(example, Text):
        return example.text.encode()
    fields = (field.name for field in dataclasses.fields(example) if field.name != "source")
    return json.dumps({name: getattr(example, name) for name in fields}).encode()
