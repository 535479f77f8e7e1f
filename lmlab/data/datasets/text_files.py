"""Text files of the user's: plain text and JSON lines, compressed or not, as documents in splits."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from lmlab.contracts import Text
from lmlab.data.corpus import Corpus, split_of
from lmlab.data.file_splits import check_shares
from lmlab.data.files import Paths, files
from lmlab.data.reading import Unit, by_position, documents_of
from lmlab.ranges import ProperFraction
from lmlab.registry import datasets


@datasets.register("text_files")
@dataclass(frozen=True)
class TextFiles:
    """Text in files: UTF-8, as it is or in `.gz`, `.bz2`, `.xz`; files named `.jsonl` or `.ndjson` hold JSON lines.

    Splits without files of their own are taken out of `train`: whole documents by the md5 of their text, so
    that a document and its copies are in one split and stay there when others come; or, by position, the end
    of the text (valid, then test), which is what a single long document needs.

    Args:
      train: paths or globs (`**` is any depth), relative to the working directory.
      valid: the same for the validation split (none: `valid_share` of train).
      test: the same for the test split (none: `test_share` of train).
      documents: what one document is: a `file`, a `line`, or a paragraph that ends at a `blank_line`.
        In JSON lines each line is one.
      field: the member of each JSON object that holds the text.
      split_by: how shares are taken: whole documents by `hash`, or characters by `position`.
      valid_share: part of the documents (characters) that becomes the validation split.
      test_share: part of the documents (characters) that becomes the test split.
    """

    example: ClassVar[type] = Text
    TINY: ClassVar[str] = """
    text_files.train = '{folder}/text/*.txt'
    text_files.valid_share = 0.2
    text_files.test_share = 0.2
    """

    train: Paths
    valid: Paths = ()
    test: Paths = ()
    documents: Unit = "file"
    field: str = "text"
    split_by: Literal["hash", "position"] = "hash"
    valid_share: ProperFraction = 0.05
    test_share: ProperFraction = 0.05

    def split(self, name: str) -> tuple[Text, ...]:
        """The documents of a split; DataError where there are none, or a file cannot be read."""
        return self._corpus.split(name)

    def fingerprint(self) -> dict[str, Any]:
        """Contents by split; where the files lie does not matter."""
        return self._corpus.fingerprint()

    def stream(self, split: str, longest: int) -> Iterator[Text]:
        """The documents of a split one by one, as `split` gives them, from files that do not fit into memory.

        Args:
          split: `train`, `valid` or `test`.
          longest: bytes of the longest document; DataError for one that has more.
        """
        own = {"valid": self.valid, "test": self.test}.get(split)
        if own:
            return (document for document in self._read(split, own, longest) if document.text)
        return (document for found, document in self._documents(longest) if found == split and document.text)

    @functools.cached_property
    def _corpus(self) -> Corpus:
        way_out = (
            "Name files for it (text_files.valid, text_files.test), or split a single long document "
            "with text_files.split_by = 'position'."
        )
        return Corpus.of("text_files", self._documents(), way_out)

    def _documents(self, longest: int | None = None) -> Iterator[tuple[str, Text]]:
        valid, test = (0.0 if self.valid else self.valid_share), (0.0 if self.test else self.test_share)
        check_shares("text_files", valid, test)
        if self.split_by == "position":
            total = sum(len(document.text) for document in self._read("train", self.train, longest))
            yield from by_position(self._read("train", self.train, longest), total, valid, test)
        else:
            for document in self._read("train", self.train, longest):
                yield split_of(document.text, valid, test), document
        yield from (("valid", document) for document in self._read("valid", self.valid, longest))
        yield from (("test", document) for document in self._read("test", self.test, longest))

    def _read(self, split: str, paths: Paths, longest: int | None) -> Iterator[Text]:
        for file in files(paths, f"text_files.{split}"):
            yield from documents_of(file, self.documents, self.field, longest)
