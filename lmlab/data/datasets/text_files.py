"""Text files of the user's: plain text and JSON lines, compressed or not, as documents in splits."""

from __future__ import annotations

import bz2
import functools
import glob
import gzip
import json
import lzma
import re
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal

from lmlab.contracts import Text
from lmlab.data.corpus import Corpus, split_of
from lmlab.data.tokenizers.plain import utf8
from lmlab.errors import DataError
from lmlab.ranges import ProperFraction
from lmlab.registry import datasets

Paths = str | tuple[str, ...]

_DECOMPRESS: dict[str, Callable[[bytes], bytes]] = {
    ".gz": gzip.decompress,
    ".bz2": bz2.decompress,
    ".xz": lzma.decompress,
}
_JSON_LINES = {".jsonl", ".ndjson"}


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
    documents: Literal["file", "line", "blank_line"] = "file"
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

    @functools.cached_property
    def _corpus(self) -> Corpus:
        way_out = (
            "Name files for it (text_files.valid, text_files.test), or split a single long document "
            "with text_files.split_by = 'position'."
        )
        return Corpus.of("text_files", self._split_documents(), way_out)

    def _split_documents(self) -> Iterator[tuple[str, Text]]:
        valid, test = (0.0 if self.valid else self.valid_share), (0.0 if self.test else self.test_share)
        if valid < 0 or test < 0 or valid + test >= 1:
            raise DataError(f"text_files: shares of {valid} and {test} leave nothing to train on.")
        training = self._read("train", self.train)
        if self.split_by == "position":
            yield from _by_position(list(training), valid, test)
        else:
            yield from ((split_of(document.text, valid, test), document) for document in training)
        yield from (("valid", document) for document in self._read("valid", self.valid))
        yield from (("test", document) for document in self._read("test", self.test))

    def _read(self, split: str, paths: Paths) -> Iterator[Text]:
        for pattern in (paths,) if isinstance(paths, str) else paths:
            for file in _files(pattern, f"text_files.{split}"):
                yield from _documents(file, self.documents, self.field)


def _files(pattern: str, where: str) -> list[str]:
    """The files that a path or glob names, sorted."""
    expanded = str(Path(pattern).expanduser())
    if Path(expanded).is_file():
        return [expanded]
    everything = glob.glob(expanded, recursive=True)  # noqa: PTH207 (Path.glob refuses absolute patterns)
    found = sorted(name for name in everything if Path(name).is_file())
    if not found:
        what = "no file matches it" if glob.has_magic(pattern) else "no such file"
        raise DataError(f"{where}: '{pattern}': {what} (looked in {Path.cwd()}).")
    return found


def _documents(file: str, documents: str, field: str) -> Iterator[Text]:
    text = _decode(file, _contents(file))
    suffixes = [suffix for suffix in Path(file).suffixes if suffix not in _DECOMPRESS]
    if suffixes and suffixes[-1] in _JSON_LINES:
        yield from _json_lines(file, text, field)
    elif documents == "line":
        yield from (Text(line, f"{file}:{i}") for i, line in enumerate(text.split("\n"), 1))
    elif documents == "blank_line":
        yield from (Text(part.strip("\n"), file) for part in re.split(r"\n(?:[ \t\r]*\n)+", text))
    else:
        yield Text(text, file)


def _contents(file: str) -> bytes:
    """The bytes of a file, decompressed by its suffix."""
    try:
        data = Path(file).read_bytes()
    except OSError as error:
        raise DataError(f"{file}: {error.strerror}.") from error
    decompress = _DECOMPRESS.get(Path(file).suffix)
    if decompress is None:
        return data
    try:
        return decompress(data)
    except (EOFError, OSError, ValueError, lzma.LZMAError, zlib.error) as error:
        raise DataError(
            f"{file}: its compressed data is damaged or ends too early ({error}). Fetch it again."
        ) from error


def _decode(file: str, data: bytes) -> str:
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        raise DataError(
            f"{file}: byte {error.start} (0x{data[error.start]:02x}) is not UTF-8. "
            "Convert the file, for example with iconv -t UTF-8."
        ) from None


def _json_lines(file: str, text: str, field: str) -> Iterator[Text]:
    for number, line in enumerate(text.split("\n"), 1):
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


def _by_position(documents: list[Text], valid: float, test: float) -> Iterator[tuple[str, Text]]:
    """The characters of all documents in a row: first the training part, then valid, then test."""
    total = sum(len(document.text) for document in documents)
    edges = {"train": 0, "valid": round(total * (1 - valid - test)), "test": round(total * (1 - test))}
    ends = [edges["valid"], edges["test"], total]
    before = 0
    for document in documents:
        for (split, begin), end in zip(edges.items(), ends, strict=True):
            part = document.text[max(begin - before, 0) : max(end - before, 0)]
            yield split, Text(part, document.source)
        before += len(document.text)
