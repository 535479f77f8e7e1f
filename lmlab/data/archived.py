"""Datasets that are read from package archives: what they have in common, so that each says only how it is read."""

from __future__ import annotations

import csv
import functools
import io
from abc import ABC, abstractmethod
from collections.abc import Iterator
from typing import Any, ClassVar

from lmlab.data.archives import Archive, Origin, read_member
from lmlab.data.corpus import Corpus
from lmlab.errors import DataError


class ArchivedCorpus(ABC):
    """A dataset whose examples all stand in one archive, and are read when the first is asked for.

    A subclass says by `origin` which archive, by `NAME` what it is called in messages, and by `_read` what is in it.
    """

    origin: ClassVar[Origin]
    NAME: ClassVar[str]

    @property
    def archive(self) -> Archive:
        """What it is read from."""
        return self.origin.archives[0]

    @abstractmethod
    def _read(self) -> Iterator[tuple[str, Any]]:
        """Every example with its split."""

    def split(self, name: str) -> tuple[Any, ...]:
        """The examples of a split, in the archive's order; DataError where there are none."""
        return self._corpus.split(name)

    def fingerprint(self) -> dict[str, Any]:
        """The archive's checksum, and the contents of every split."""
        return {"archive": self.archive.sha256, **self._corpus.fingerprint()}

    @functools.cached_property
    def _corpus(self) -> Corpus[Any]:
        return Corpus.of(self.NAME, self._read(), "It has train, valid and test.")


class LabelledCorpus(ArchivedCorpus):
    """One whose examples have labels."""

    @property
    def labels(self) -> tuple[str, ...]:
        """The labels of the training split, sorted."""
        return self._corpus.labels


def lines_of(archive: Archive, member: str, encoding: str = "utf-8") -> Iterator[tuple[str, str]]:
    """Place (`archive:member:number`) and text of every line of a file of an archive; DataError if not in `encoding`.

    Lines end at line feeds only: a form feed or a rare separator inside a text divides nothing.
    """
    lines = text_of(archive, member, read_member(archive, member), encoding).split("\n")
    for number, line in enumerate(lines[:-1] if lines[-1] == "" else lines, 1):
        yield f"{archive.name}:{member}:{number}", line


def rows_of(name: str, text: str, columns: tuple[str, ...]) -> Iterator[tuple[str, dict[str, str]]]:
    """Place (`name:line`, the row's last) and values of every row of a CSV text whose first row is `columns`.

    Raises:
      DataError: the columns are others, or a row does not have as many values.
    """
    table = csv.reader(io.StringIO(text, newline=""), strict=True)
    try:
        if (found := tuple(next(table, ()))) != columns:
            raise DataError(f"{name}:1: the columns are {', '.join(found)}, not {', '.join(columns)}.")
        for row in table:
            if len(row) != len(columns):
                raise DataError(f"{name}:{table.line_num}: {len(row)} values, not {len(columns)}: {_brief(row)}.")
            yield f"{name}:{table.line_num}", dict(zip(columns, row, strict=True))
    except csv.Error as error:
        raise DataError(f"{name}:{table.line_num}: not CSV: {error}.") from None


def text_of(archive: Archive, member: str, content: bytes, encoding: str = "utf-8") -> str:
    """The text of a file of an archive; DataError if it is not in `encoding`."""
    try:
        return content.decode(encoding)
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        byte = f"0x{content[error.start]:02x}"
        raise DataError(f"{archive.name}:{member}:{line}: byte {byte} is not {encoding.upper()}.") from None


def _brief(row: list[str]) -> str:
    text = repr(row)
    return text if len(text) <= 60 else f"{text[:59]}…"
