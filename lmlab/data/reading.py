"""Documents out of text files, read in pieces: a file may be larger than the memory, a document may not.

Plain text and JSON lines, in UTF-8, as they are or compressed (`.gz`, `.bz2`, `.xz`).
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator
from typing import Literal

from lmlab.contracts import Text
from lmlab.data.files import JSON_LINES, decoded, pieces, refuse_long, suffix_of
from lmlab.data.tokenizers.plain import utf8
from lmlab.errors import DataError

Unit = Literal["file", "line", "blank_line"]

_BLANK = re.compile(r"[ \t\r]*\n")


def documents_of(file: str, unit: Unit, field: str, longest: int | None = None) -> Iterator[Text]:
    """The documents of a file in their order, empty ones too.

    Args:
      file: its path; the suffix says what it holds.
      unit: what one document is; in JSON lines each line is one.
      field: the member of each JSON object that holds the text.
      longest: bytes of the longest document (None: any).

    Raises:
      DataError: the file cannot be read, is damaged, is not UTF-8, or has a document of more bytes.
    """
    if suffix_of(file) in JSON_LINES:
        yield from _json_lines(file, _lines(file, longest), field)
    elif unit == "line":
        yield from (Text(line.removesuffix("\n"), f"{file}:{i}") for i, line in enumerate(_lines(file, longest), 1))
    elif unit == "blank_line":
        yield from _paragraphs(file, _lines(file, longest), longest)
    else:
        yield Text(decoded(file, b"".join(pieces(file, longest)), 0), file)


def by_position(documents: Iterable[Text], total: int, valid: float, test: float) -> Iterator[tuple[str, Text]]:
    """The characters of all documents in a row, `total` of them: first the training part, then valid, then test."""
    edges = {"train": 0, "valid": round(total * (1 - valid - test)), "test": round(total * (1 - test))}
    ends = [edges["valid"], edges["test"], total]
    before = 0
    for document in documents:
        for (split, begin), end in zip(edges.items(), ends, strict=True):
            part = document.text[max(begin - before, 0) : max(end - before, 0)]
            yield split, Text(part, document.source)
        before += len(document.text)


def _lines(file: str, longest: int | None) -> Iterator[str]:
    """Lines with their ends; no character of UTF-8 has the byte of a line's end in it."""
    before = 0
    for line in pieces(file, longest, line_by_line=True):
        yield decoded(file, line, before)
        before += len(line)


def _paragraphs(file: str, lines: Iterable[str], longest: int | None) -> Iterator[Text]:
    """Runs of lines that end at a blank one; the first line of a file ends no paragraph, as none is before it."""
    found: list[str] = []
    size = 0
    for number, line in enumerate(lines):
        if number and _BLANK.fullmatch(line):
            yield Text("".join(found).strip("\n"), file)
            found, size = [], 0
            continue
        found.append(line)
        size += len(line)
        refuse_long(file, size, longest)
    yield Text("".join(found).strip("\n"), file)


def _json_lines(file: str, lines: Iterable[str], field: str) -> Iterator[Text]:
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        where = f"{file}:{number}"
        try:
            record = json.loads(line)
        except json.JSONDecodeError as error:
            raise DataError(f"{where}: not JSON: {error.msg} at character {error.colno}.") from None
        if not isinstance(record, dict) or not isinstance(record.get(field), str):
            there = ", ".join(record) if isinstance(record, dict) else type(record).__name__
            raise DataError(f"{where}: no text in the field '{field}'; there is: {there}. Set text_files.field.")
        try:
            utf8(record[field])
        except DataError as error:
            raise DataError(f"{where}: {error}") from None
        yield Text(record[field], where)
