"""Files of the user's: found by path or glob, decompressed, decoded; and what becomes of what is malformed in them."""

from __future__ import annotations

import bz2
import glob
import gzip
import json
import lzma
import zlib
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO, Literal

from lmlab.data.tokenizers.plain import utf8
from lmlab.errors import DataError

Paths = str | tuple[str, ...]
"""Paths or globs (`**` is any depth), relative to the working directory."""

OnMalformed = Literal["refuse", "drop"]

JSON_LINES = {".jsonl", ".ndjson"}

_OPEN: dict[str, Callable[[BinaryIO], Any]] = {".gz": gzip.open, ".bz2": bz2.open, ".xz": lzma.open}
_BOM = "\ufeff"


class Malformed(Exception):
    """What is wrong with one row of a file, as a sentence.

    Args:
      problem: the sentence.
      where: the place in a row of several lines; None: `LeftOut.row` knows it.
    """

    def __init__(self, problem: str, where: str | None = None) -> None:
        super().__init__(problem)
        self.where = where


class LeftOut:
    """Counts what is left out on the way from the files of a dataset to its examples, by reason.

    Args:
      dataset: its name, for messages.
      malformed: `refuse` makes the first malformed row a DataError; `drop` counts it and goes on.
    """

    def __init__(self, dataset: str, malformed: OnMalformed = "refuse") -> None:
        self._dataset = dataset
        self._refuses = malformed == "refuse"
        self.counts: Counter[str] = Counter()

    def row(self, where: str) -> AbstractContextManager[None]:
        """Within it, `Malformed` drops the row at `where`, or refuses it in one line."""
        return _Row(self, where)

    def malformed(self, where: str, problem: Malformed) -> None:
        """Counts a malformed row, or refuses it."""
        if self._refuses:
            raise DataError(
                f"{problem.where or where}: {problem} Correct it, or drop and count what is malformed: "
                f"{self._dataset}.malformed = 'drop'."
            ) from None
        self.counts["malformed"] += 1

    @property
    def notes(self) -> dict[str, float]:
        """The counts by reason, sorted; a reason that never occurred is not there."""
        return {reason: float(self.counts[reason]) for reason in sorted(self.counts) if self.counts[reason]}


class _Row(AbstractContextManager[None]):
    """See `LeftOut.row`; a class, which is entered faster than a generator: every row is, up to three times."""

    __slots__ = ("_left_out", "_where")

    def __init__(self, left_out: LeftOut, where: str) -> None:
        self._left_out, self._where = left_out, where

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: object, problem: BaseException | None, trace: object) -> bool:
        if not isinstance(problem, Malformed):
            return False
        self._left_out.malformed(self._where, problem)
        return True


def files(patterns: Paths, where: str) -> list[str]:
    """The files that paths and globs name: each pattern's own sorted, in the order of the patterns.

    Raises:
      DataError: a pattern names no file; the message begins with `where`, the parameter that holds it.
    """
    several = (patterns,) if isinstance(patterns, str) else patterns
    return [file for pattern in several for file in _named(pattern, where)]


def _named(pattern: str, where: str) -> list[str]:
    expanded = str(Path(pattern).expanduser())
    if Path(expanded).is_file():
        return [expanded]
    everything = glob.glob(expanded, recursive=True)  # noqa: PTH207 (Path.glob refuses absolute patterns)
    found = sorted(name for name in everything if Path(name).is_file())
    if not found:
        what = "no file matches it" if glob.has_magic(pattern) else "no such file"
        raise DataError(f"{where}: '{pattern}': {what} (looked in {Path.cwd()}).")
    return found


def suffix_of(file: str) -> str:
    """The last suffix that does not name a compression, in lower case: `.csv` of `a.CSV.gz`."""
    suffixes = [suffix.lower() for suffix in Path(file).suffixes if suffix not in _OPEN]
    return suffixes[-1] if suffixes else ""


def contents(file: str) -> bytes:
    """All bytes of a file, decompressed by its suffix; DataError where it cannot be read or is damaged."""
    return b"".join(pieces(file))


_LARGEST_BUFFER = 1 << 30  # bytes


def pieces(file: str, longest: int | None = None, line_by_line: bool = False) -> Iterator[bytes]:
    """The bytes of a file, decompressed by its suffix: all at once, or each line with its end.

    Raises:
      DataError: the file cannot be read or is damaged, or a piece has more than `longest` bytes.
    """
    decompress = _OPEN.get(Path(file).suffix)
    try:
        raw = Path(file).open("rb")  # noqa: SIM115 (closed below; errors of opening and of reading have two messages)
    except OSError as error:
        raise DataError(f"{file}: {error.strerror}.") from error
    with raw:
        try:
            stream = decompress(raw) if decompress else raw
            # A buffer of the limit's size is made for each piece: a limit beyond all memory is looked at afterwards.
            limit = -1 if longest is None or longest > _LARGEST_BUFFER else longest + 1
            for piece in iter(partial(stream.readline if line_by_line else stream.read, limit), b""):
                refuse_long(file, len(piece), longest)
                yield piece
        # A damaged stream shows as any of these; gzip and bz2 name a truncated one EOFError, lzma its own error.
        except (EOFError, OSError, ValueError, lzma.LZMAError, zlib.error) as error:
            if decompress is None:
                raise DataError(f"{file}: {getattr(error, 'strerror', None) or error}.") from error
            raise DataError(
                f"{file}: its compressed data is damaged or ends too early ({error}). Fetch it again."
            ) from error


def decoded(file: str, data: bytes, before: int = 0) -> str:
    """The text of `data`, which stands `before` bytes behind the beginning of the file."""
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        raise DataError(
            f"{file}: byte {before + error.start} (0x{data[error.start]:02x}) is not UTF-8. "
            "Convert the file, for example with iconv -t UTF-8."
        ) from None


def refuse_long(file: str, size: int, longest: int | None) -> None:
    """DataError for a document of more than `longest` bytes."""
    if longest is not None and size > longest:
        raise DataError(
            f"{file}: a document of more than {longest / 1e6:g} MB, all of which would have to be in memory at once. "
            "Cut it (text_files.documents = 'blank_line' or 'line'), or allow it (--longest-document MB)."
        )


def row_text(file: str, encoding: str = "UTF-8") -> str:
    """The text of a file of rows, without a byte order mark.

    Bytes that are none of the encoding become lone surrogates (PEP 383), so that `check_bytes` finds the row that they
    stand in and the other rows can be read.
    """
    return contents(file).decode(encoding, errors="surrogateescape").removeprefix(_BOM)


def check_bytes(raw: str, encoding: str = "UTF-8", where: str | None = None) -> str:
    """The text itself; Malformed where `row_text` found a byte in it that is none of the encoding."""
    try:
        raw.encode()
    except UnicodeEncodeError as error:
        raise Malformed(f"byte 0x{ord(raw[error.start]) - 0xDC00:02x} is not {encoding}.", where) from None
    return raw


def text_of(value: Any, what: str) -> str:
    """A value that has to be a text with something in it; `what` it is stands in the message of Malformed."""
    if value is None or value == "":
        raise Malformed(f"no {what}.")
    if not isinstance(value, str):
        raise Malformed(f"the {what} is no text but {json.dumps(value, default=str)[:40]}.")
    try:
        utf8(value)
    except DataError as error:
        raise Malformed(f"{what}: {error}") from None
    return value


def lines(file: str, encoding: str = "UTF-8") -> Iterator[tuple[str, str]]:
    """Every line with where it stands (`file:number`), see `row_text`; lines end with LF or CRLF."""
    found = row_text(file, encoding).split("\n")
    if not found[-1]:
        found.pop()
    for number, line in enumerate(found, 1):
        yield f"{file}:{number}", line.removesuffix("\r")


def json_lines(file: str, left_out: LeftOut) -> Iterator[tuple[str, Any]]:
    """The value on every line that is not blank, with where it stands."""
    for where, line in lines(file):
        if line.strip():
            with left_out.row(where):
                yield where, json_value(line)


def json_value(line: str) -> Any:
    """What a line of JSON says; Malformed where it is none."""
    try:
        return json.loads(check_bytes(line))
    except json.JSONDecodeError as error:
        raise Malformed(f"not JSON: {error.msg} at character {error.colno}.") from None
    except RecursionError:
        raise Malformed("not JSON that can be read: nested too deeply.") from None
