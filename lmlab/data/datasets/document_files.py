"""Documents of sentences in files of the user's, for objectives that look at both."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

from lmlab.contracts import Document
from lmlab.data.file_splits import FileSplits
from lmlab.data.files import LeftOut, check_bytes, lines
from lmlab.registry import datasets


@datasets.register("document_files")
@dataclass(frozen=True)
class DocumentFiles(FileSplits):
    """Documents with a sentence to a line and an empty line between them, as BERT's pre-training reads its text.

    Text is UTF-8; files may be compressed (`.gz`, `.bz2`, `.xz`). A file's end ends a document. White space at the ends
    of a line is dropped. Splits without files of their own are taken out of `train`: whole documents, by the md5 of
    their text. Malformed is a document with a line that is not UTF-8.

    Args:
      train: paths or globs (`**` is any depth), relative to the working directory.
      valid: the same for the validation split (none: `valid_share` of train).
      test: the same for the test split (none: `test_share` of train).
      valid_share: part of the documents that becomes the validation split.
      test_share: part of the documents that becomes the test split.
      malformed: `refuse` names the first malformed line; `drop` leaves its document out and counts it.
    """

    example: ClassVar[type] = Document
    name: ClassVar[str] = "document_files"
    TINY: ClassVar[str] = """
    document_files.train = '{folder}/documents.txt'
    document_files.valid_share = 0.2
    document_files.test_share = 0.2
    """

    def _examples_of(self, file: str, left_out: LeftOut) -> Iterator[Document]:
        found: list[tuple[str, str]] = []
        for where, line in lines(file):
            if line.strip():
                found.append((where, line))
            elif found:
                yield from _document(found, left_out)
                found = []
        if found:
            yield from _document(found, left_out)


def _document(found: list[tuple[str, str]], left_out: LeftOut) -> Iterator[Document]:
    """The document of some lines; none, and counted, where one of them is malformed."""
    first = found[0][0]
    with left_out.row(first):
        yield Document(tuple(check_bytes(line, where=where).strip() for where, line in found), first)
