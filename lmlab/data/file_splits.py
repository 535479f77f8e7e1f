"""Examples of any kind out of files of the user's, in splits that share no text."""

from __future__ import annotations

import functools
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from lmlab.contracts import Conversation, Document, LabelledText, Question, TaggedText, Text, TextPair
from lmlab.data.corpus import Corpus, split_of
from lmlab.data.files import LeftOut, OnMalformed, Paths, files
from lmlab.errors import DataError
from lmlab.ranges import ProperFraction


@dataclass(frozen=True)
class Splits(ABC):
    """What datasets of rows have in common: splits, a fingerprint, and the counts of what was left out.

    A dataset adds its example kind, its registered `name`, and how its splits are read.
    """

    name: ClassVar[str]

    def split(self, name: str) -> Sequence[Any]:
        """The examples of a split in the order of the rows; DataError where there are none, or they cannot be read."""
        return self._corpus.split(name)

    def fingerprint(self) -> dict[str, Any]:
        """Number and sha256 of every split's examples, and what was left out; not where they lie."""
        return {**self._corpus.fingerprint(), "left_out": self._read[1].notes}

    @property
    def notes(self) -> Mapping[str, float]:
        """How many rows were left out, by reason."""
        return self._read[1].notes

    @property
    def _corpus(self) -> Corpus[Any]:
        return self._read[0]

    @property
    @abstractmethod
    def _read(self) -> tuple[Corpus[Any], LeftOut]:
        """The examples of every split, and what was left out of them; a subclass makes it a `cached_property`."""


@dataclass(frozen=True)
class FileSplits(Splits):
    """Splits out of files of the user's.

    Splits without files of their own are taken out of `train`: whole examples, by the md5 of what `split_key` says,
    so that equal texts are on one side and stay there when others come.

    Args:
      train, valid, test: paths or globs.
      valid_share, test_share: part of train for the splits without files.
      malformed: `refuse` names the first malformed row; `drop` leaves such rows out and counts them.
    """

    train: Paths
    valid: Paths = ()
    test: Paths = ()
    valid_share: ProperFraction = 0.05
    test_share: ProperFraction = 0.05
    malformed: OnMalformed = "refuse"

    @functools.cached_property
    def _read(self) -> tuple[Corpus[Any], LeftOut]:
        left_out = LeftOut(self.name, self.malformed)
        way_out = f"Name files for it ({self.name}.valid, {self.name}.test), or raise its share of train."
        return Corpus.of(self.name, self._in_splits(left_out), way_out), left_out

    def _in_splits(self, left_out: LeftOut) -> Iterator[tuple[str, Any]]:
        valid, test = (0.0 if self.valid else self.valid_share), (0.0 if self.test else self.test_share)
        check_shares(self.name, valid, test)
        for example in self._examples("train", self.train, left_out):
            yield split_of(split_key(example), valid, test), example
        yield from (("valid", example) for example in self._examples("valid", self.valid, left_out))
        yield from (("test", example) for example in self._examples("test", self.test, left_out))

    def _examples(self, split: str, paths: Paths, left_out: LeftOut) -> Iterator[Any]:
        """The examples of the files that were named for a split."""
        for file in files(paths, f"{self.name}.{split}"):
            yield from self._examples_of(file, left_out)

    @abstractmethod
    def _examples_of(self, file: str, left_out: LeftOut) -> Iterator[Any]:
        """The examples of one file."""


def check_shares(dataset: str, valid: float, test: float) -> None:
    """DataError unless something is left to train on."""
    if valid + test >= 1:
        raise DataError(f"{dataset}: shares of {valid} and {test} leave nothing to train on.")


def split_key(example: Any) -> str:
    """What decides an example's split: the text that a model reads, so that no two splits have it in common.

    Not its label, target or tags: one text with two of these is on one side.
    """
    match example:
        case Text(text) | TextPair(text):
            return text
        case LabelledText(text, _, second):
            return text if second is None else f"{text}\0{second}"
        case TaggedText(words):
            return "\0".join(words)
        case Question(_, context):
            return context
        case Document(sentences):
            return "\n".join(sentences)
        case Conversation(roles, contents):  # what stands before the first answer
            return "\0".join(contents[: roles.index("assistant")])
    raise TypeError(f"no text decides the split of {type(example).__name__}")
