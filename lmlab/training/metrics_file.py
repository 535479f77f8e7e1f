"""`metrics.jsonl`: the truth about a run's numbers, one JSON object per line, only ever appended to.

A checkpoint remembers how long the file was and the hash of what stood in it. Resuming cuts the file back to
there, so that no step stands in it twice and none is missing.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lmlab.errors import RunFolderError
from lmlab.training.files import writing

NAME = "metrics.jsonl"


@dataclass(frozen=True)
class Position:
    """How much of the file a checkpoint stands for: its length in bytes and the SHA-256 of those bytes."""

    offset: int = 0
    digest: str = hashlib.sha256().hexdigest()


class MetricsFile:
    """The file, open for appending behind `position`; what stood after it is cut off.

    Raises:
      RunFolderError: the file is shorter than `position` or differs from what was there (nothing is cut
        then), or cannot be written.
    """

    def __init__(self, path: Path, position: Position) -> None:
        self.path = path
        self._hash = _hash_of_start(path, position)
        self._offset = position.offset
        with writing(path):
            self._file = path.open("ab", buffering=0)
            self._file.truncate(position.offset)

    def append(self, record: Mapping[str, Any]) -> None:
        """Adds one line, in one write."""
        line = json.dumps(record).encode() + b"\n"
        with writing(self.path):
            written = self._file.write(line)
            while written < len(line):  # a disk that fills up takes a part first, then refuses
                written += self._file.write(line[written:])
        self._hash.update(line)
        self._offset += len(line)

    def position(self) -> Position:
        """Where the file ends now, after everything is on the disk."""
        with writing(self.path):
            os.fsync(self._file.fileno())
        return Position(self._offset, self._hash.hexdigest())

    def close(self) -> None:
        """Closes the file."""
        self._file.close()


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """All records; an unfinished last line, of a run that was killed, is left out.

    Raises:
      RunFolderError: the file cannot be read, or a line is not JSON.
    """
    try:
        lines = path.read_bytes().split(b"\n")
    except FileNotFoundError:
        return []
    except OSError as error:
        raise RunFolderError(f"{path} cannot be read: {error.strerror}.") from error
    records = []
    for number, line in enumerate(lines[:-1], 1):
        try:
            records.append(json.loads(line))
        except ValueError as error:
            raise RunFolderError(
                f"{path}:{number}: this line is not JSON ({error}). Resume from a checkpoint saved before it "
                "(`lmlab train ... --from-step STEP`): the file is cut back to that point."
            ) from error
    return records


def _hash_of_start(path: Path, position: Position) -> Any:
    """The running hash over the first `position.offset` bytes, compared with the remembered one."""
    running = hashlib.sha256()
    left = position.offset
    if left:
        try:
            with path.open("rb") as file:
                while left and (block := file.read(min(left, 1 << 20))):
                    running.update(block)
                    left -= len(block)
        except OSError as error:
            raise RunFolderError(f"{path} cannot be read: {error.strerror}. {_WAY_OUT}") from error
    if left:
        raise RunFolderError(
            f"{path} was cut short: it has {position.offset - left:,} bytes, and had {position.offset:,} when the "
            f"checkpoint was saved. {_WAY_OUT}"
        )
    if running.hexdigest() != position.digest:
        raise RunFolderError(f"{path} was changed since the checkpoint was saved. {_WAY_OUT}")
    return running


_WAY_OUT = (
    "Put the file back, or resume from a checkpoint saved before the damage (--from-step STEP), or start again "
    "(--fresh keeps the old folder under another name)."
)
