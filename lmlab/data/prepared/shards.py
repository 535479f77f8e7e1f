"""The shards of one split, made one after the other; those that are finished are only compared with the corpus."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from lmlab.data.prepared.store import Shard, shard_path
from lmlab.data.prepared.workers import Chunk
from lmlab.data.prepared.writing import Part, is_whole, pieces, writing
from lmlab.errors import DataError


class Shards:
    """The shards of a split at work.

    Args:
      folder, split: where.
      recorded: those that were finished before.
      part: begins the shard with a number.
      record: told, after each shard that was made, of all that are finished, and of its number.

    Attributes:
      finished: the numbers of those whose files are whole, which are not made again.
    """

    def __init__(
        self,
        folder: Path,
        split: str,
        recorded: Sequence[Shard],
        part: Callable[[str, int], Part],
        record: Callable[[str, list[Shard], int], None],
    ) -> None:
        self._folder, self._split, self._recorded = folder, split, recorded
        self._make, self._record = part, record
        self.finished = frozenset(n for n, shard in enumerate(recorded) if is_whole(folder, split, n, shard))
        self._shards: list[Shard] = []
        self._text, self._stream = hashlib.sha256(), hashlib.sha256()
        self._part: Part | None = None
        self._documents = self._bytes = 0
        self._number = -1

    def take(self, chunk: Chunk, encoded: Any) -> None:
        """The next documents; `encoded` is None where their shard is finished."""
        if chunk.shard != self._number:
            self._close()
            self._open(chunk.shard)
        for content in chunk.contents:
            self._text.update(len(content).to_bytes(8, "little"))
            self._text.update(content)
        self._documents += len(chunk.contents)
        self._bytes += sum(map(len, chunk.contents))
        if self._part is not None:
            with writing(self._folder):
                self._part.add(encoded)

    def end(self) -> dict[str, Any]:
        """After the last document: the split's part of the manifest."""
        self._close()
        if len(self._recorded) > len(self._shards):
            raise self._changed("has fewer documents")
        return {
            "documents": sum(shard.documents for shard in self._shards),
            "ids": sum(shard.ids for shard in self._shards),
            "bytes": sum(shard.bytes for shard in self._shards),
            "sha256": self._stream.hexdigest(),
            "text_sha256": self._text.hexdigest(),
            "shards": [asdict(shard) for shard in self._shards],
        }

    def abandon(self) -> None:
        """Removes what is unfinished."""
        if self._part is not None:
            self._part.abandon()

    def _open(self, number: int) -> None:
        self._number, self._documents, self._bytes = number, 0, 0
        if number not in self.finished:
            with writing(self._folder):
                self._part = self._make(self._split, number)

    def _close(self) -> None:
        if self._number < 0:
            return
        text = self._text.hexdigest()
        recorded = self._recorded[self._number] if self._number < len(self._recorded) else None
        if recorded is not None and recorded.text_sha256 != text:
            raise self._changed(f"is another in shard {self._number}")
        if self._part is not None:
            ids = self._part.ids
            with writing(self._folder):
                files, sizes = self._part.close()
            self._part = None
            self._shards.append(Shard(self._documents, ids, self._bytes, text, files, sizes))
            self._record(self._split, [*self._shards, *self._recorded[len(self._shards) :]], self._number)
        else:
            assert recorded is not None
            self._shards.append(recorded)
        content = next(iter(self._shards[-1].files))
        for piece in pieces(shard_path(self._folder, self._split, self._number, content)):
            self._stream.update(piece)

    def _changed(self, how: str) -> DataError:
        return DataError(
            f"the corpus has changed since {self._folder} was begun: its {self._split} split {how}. "
            "Choose another folder with --out, or delete this one."
        )
