"""Shards written so that a file with its name is whole: under another name first, then renamed."""

from __future__ import annotations

import errno
import fcntl
import hashlib
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO, Protocol

import numpy as np

from lmlab.data.prepared.store import Shard, shard_path
from lmlab.errors import DataError

_WAY_OUT = {
    errno.ENOSPC: "The disk is full: free some space, then run the same command again; finished shards are kept.",
    errno.EDQUOT: "The quota is used up: free some space, then run the same command again; finished shards are kept.",
    errno.EFBIG: "The file size limit is reached: raise it, or lower --shard-size.",
    errno.EACCES: "Give yourself the permission, or choose another folder with --out.",
    errno.EPERM: "Give yourself the permission, or choose another folder with --out.",
    errno.EROFS: "The file system is read-only: choose another folder with --out.",
}
_PIECE = 1 << 22  # bytes of a file hashed at a time


class Part(Protocol):
    """A shard that is being written.

    Attributes:
      ids: how many are written.
    """

    ids: int

    def add(self, encoded: Any) -> None:
        """Writes what `workers` made of some documents."""
        ...

    def close(self) -> tuple[dict[str, str], dict[str, int]]:
        """Renames the files to their own names; gives their sha256 and sizes by ending."""
        ...

    def abandon(self) -> None:
        """Removes what is unfinished."""
        ...


class StreamPart:
    """A shard of ids, and of the places at which its documents begin.

    Args:
      folder, split, number: which.
      first: the end-of-text id before the first document of a split, as its bytes; b"" in later shards.
    """

    def __init__(self, folder: Path, split: str, number: int, first: bytes) -> None:
        self._ids = _File(shard_path(folder, split, number, "ids"))
        self._documents = _File(shard_path(folder, split, number, "documents"))
        self._ids.write(first)
        self.ids = 1 if first else 0

    def add(self, encoded: tuple[bytes, np.ndarray]) -> None:
        """Documents as the bytes of their ids, and the number of ids of each with its end-of-text."""
        ids, lengths = encoded
        ends = self.ids + np.cumsum(lengths)
        self._documents.write((ends - lengths).astype("<u8").tobytes())
        self._ids.write(ids)
        self.ids = int(ends[-1])

    def close(self) -> tuple[dict[str, str], dict[str, int]]:
        """See `Part`."""
        return _closed({"ids": self._ids, "documents": self._documents})

    def abandon(self) -> None:
        """See `Part`."""
        self._ids.abandon()
        self._documents.abandon()


class RecordsPart:
    """A shard of examples: an ArrayRecord, in which any record is read without those before it.

    Args:
      folder, split, number: which.
    """

    ids = 0

    def __init__(self, folder: Path, split: str, number: int) -> None:
        from array_record.python import array_record_module  # comes with grain

        self._path = shard_path(folder, split, number, "examples")
        self._part = _part_name(self._path)
        with _named(self._path):
            self._writer = array_record_module.ArrayRecordWriter(str(self._part), "group_size:1")

    def add(self, encoded: Sequence[bytes]) -> None:
        """One record for each example."""
        with _named(self._path):
            for record in encoded:
                self._writer.write(record)

    def close(self) -> tuple[dict[str, str], dict[str, int]]:
        """See `Part`."""
        with _named(self._path):
            self._writer.close()
        return _closed({"examples": _File(self._path, written=self._part)})

    def abandon(self) -> None:
        """See `Part`."""
        with suppress(Exception):  # what could not be written cannot be flushed either
            self._writer.close()
        self._part.unlink(missing_ok=True)


@contextmanager
def _named(path: Path) -> Iterator[None]:
    """ArrayRecord reports every failure of the system as a RuntimeError or ValueError."""
    try:
        yield
    except (RuntimeError, ValueError) as error:
        raise DataError(f"{path} cannot be written: {error}") from error


class _File:
    """A file under another name until `close`."""

    def __init__(self, path: Path, written: Path | None = None) -> None:
        self.path = path
        self._part = written or _part_name(path)
        self._hash = hashlib.sha256()
        self.size = 0
        if written is None:
            self._file: BinaryIO = self._part.open("wb")
        else:
            self._file = written.open("r+b")
            for piece in pieces(written):
                self._count(piece)

    def write(self, data: bytes) -> None:
        self._file.write(data)
        self._count(data)

    def _count(self, data: bytes) -> None:
        self._hash.update(data)
        self.size += len(data)

    def close(self) -> str:
        self._file.flush()
        os.fsync(self._file.fileno())
        self._file.close()
        self._part.replace(self.path)
        return self._hash.hexdigest()

    def abandon(self) -> None:
        with suppress(OSError):  # what could not be written cannot be flushed either
            self._file.close()
        self._part.unlink(missing_ok=True)


def _closed(files: dict[str, _File]) -> tuple[dict[str, str], dict[str, int]]:
    return {ending: file.close() for ending, file in files.items()}, {e: file.size for e, file in files.items()}


def _part_name(path: Path) -> Path:
    return path.with_name(f".{path.name}.part")


def pieces(path: Path) -> Iterator[bytes]:
    """The contents of a file, some at a time."""
    with path.open("rb") as file:
        while piece := file.read(_PIECE):
            yield piece


def is_whole(folder: Path, split: str, number: int, shard: Shard) -> bool:
    """Whether all files of a shard are there with the right sizes and checksums."""
    for ending, sha256 in shard.files.items():
        path = shard_path(folder, split, number, ending)
        if not path.is_file() or path.stat().st_size != shard.sizes[ending]:
            return False
        found = hashlib.sha256()
        for piece in pieces(path):
            found.update(piece)
        if found.hexdigest() != sha256:
            return False
    return True


def replace_text(path: Path, text: str) -> None:
    """Writes `text` to `path` in one atomic exchange."""
    file = _File(path)
    try:
        file.write(text.encode())
        file.close()
    except BaseException:
        file.abandon()
        raise


@contextmanager
def held(folder: Path) -> Iterator[None]:
    """Makes `folder`, and holds it for this process."""
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
        lock = (folder / ".lock").open("a")
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise DataError(f"{folder} is being prepared by another process. Wait for it.") from None
        yield


@contextmanager
def writing(folder: Path) -> Iterator[None]:
    """Turns an OSError inside into a DataError that names `folder` and the way out."""
    try:
        yield
    except OSError as error:
        reason = os.strerror(error.errno) if error.errno else str(error)
        way_out = _WAY_OUT.get(error.errno or 0, "Run the same command again; finished shards are kept.")
        raise DataError(f"{folder} cannot be written: {reason}. {way_out}") from error
