"""Making a store: the documents of a corpus, one after the other, to shards; what is finished is not made again.

Memory holds the fitted tokenizer, the chunks that the workers are at, and no more of the corpus than one document,
where the dataset can stream (`stream(split, longest)`, which yields what `split` gives, one example at a time).
"""

from __future__ import annotations

import hashlib
import itertools
import json
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from lmlab.config import build, spec_to_json
from lmlab.contracts import Dataset, Spec, Text
from lmlab.data.fingerprints import compare_fingerprints
from lmlab.data.prepared.records import to_json
from lmlab.data.prepared.store import (
    FORMAT,
    MANIFEST,
    TOKENIZER,
    UNFINISHED,
    Shard,
    manifest_text,
    read_manifest,
    read_tokenizer,
    shard_path,
)
from lmlab.data.prepared.workers import Chunk, Ids, Recipe, Workers, id_type
from lmlab.data.prepared.writing import (
    Part,
    RecordsPart,
    StreamPart,
    held,
    is_whole,
    pieces,
    replace_text,
    writing,
)
from lmlab.data.tokenizers.plain import utf8
from lmlab.errors import ConfigError, DataError
from lmlab.examples import IDS, texts_of

Say = Callable[[str], None]

CHUNK = 1 << 20
"""Bytes of text handed to a worker at a time (a longer document is a chunk by itself): little memory, few exchanges."""
_DOCUMENTS = 4096  # at most so many to a chunk


@dataclass(frozen=True)
class Request:
    """What is to be prepared, and how.

    Args:
      dataset: its Spec.
      tokenizer: its Spec; fitted on the training split.
      plugins: what both need loaded.
      max_examples: only so many first training examples (None: all).
      splits: which.
      shard_size: bytes of text after which a shard ends.
      longest: bytes of the longest document of a dataset that streams.
      workers: processes.
      examples: keep the examples as they are where they are texts too, for objectives that read the text itself.
    """

    dataset: Spec
    tokenizer: Spec
    plugins: tuple[str, ...] = ()
    max_examples: int | None = None
    splits: tuple[str, ...] = ("train", "valid", "test")
    shard_size: int = 256_000_000
    longest: int = 16_000_000
    workers: int = 1
    examples: bool = False

    def decides(self) -> dict[str, Any]:
        """What the store's files depend on, as JSON."""
        return {
            "dataset": spec_to_json(self.dataset),
            "tokenizer": spec_to_json(self.tokenizer),
            "max_examples": self.max_examples,
            "splits": list(self.splits),
            "shard_size": self.shard_size,
            "examples": self.examples,
        }


def prepare(request: Request, folder: Path, say: Say = print) -> Path:
    """Makes the store, or what is missing of it, in `folder`, and gives the path of its manifest.

    Whatever ends it: the manifest is there when the store is whole, and the same call goes on after the last finished
    shard.

    Raises:
      ConfigError: the dataset cannot be prepared, or the folder holds what was made from another configuration.
      DataError: the corpus cannot serve or has changed meanwhile, or the folder cannot be written.
    """
    dataset: Dataset = build(request.dataset)
    if dataset.example in IDS:
        raise ConfigError(f"the dataset '{request.dataset.name}' yields ids: there is nothing to prepare.")
    with held(folder):
        return _Preparation(request, dataset, folder, say).run()


class _Preparation:
    """A preparation at work."""

    def __init__(self, request: Request, dataset: Dataset, folder: Path, say: Say) -> None:
        self.request, self.dataset, self.folder, self.say = request, dataset, folder, say
        self.streamed = dataset.example is Text and not request.examples
        self.manifest = self._found() or {
            "format": FORMAT,
            "holds": "ids" if self.streamed else "examples",
            "example": dataset.example.__name__,
            "configuration": request.decides(),
            "plugins": list(request.plugins),
            "splits": {},
        }
        self.began = time.monotonic()
        self._made = 0

    def run(self) -> Path:
        """Makes what is missing."""
        with ExitStack() as stack:
            recipe = self._fitted()
            workers = stack.enter_context(Workers(recipe, self.request.workers if self.streamed else 1))
            for split in self.request.splits:
                self._split(split, workers)
        path = self.folder / MANIFEST
        if path.exists():
            with writing(self.folder):
                (self.folder / UNFINISHED).unlink(missing_ok=True)
            self.say(f"{self.folder}: already prepared; every file is checked")
            return path
        self.manifest["labels"] = list(getattr(self.dataset, "labels", ()))
        self.manifest["tags"] = list(getattr(self.dataset, "tags", ()))
        self._save()
        with writing(self.folder):
            (self.folder / UNFINISHED).replace(path)
        self.say(f"{self.folder}: prepared in {time.monotonic() - self.began:.0f} s")
        return path

    # --- what is there ---

    def _found(self) -> dict[str, Any] | None:
        """The manifest of what an earlier call left here."""
        for name in (MANIFEST, UNFINISHED):
            if not (self.folder / name).exists():
                continue
            found = read_manifest(self.folder, name)
            changed = compare_fingerprints(found["configuration"], self.request.decides())
            if changed:
                raise ConfigError(
                    f"{self.folder} was prepared from another configuration (there → now):\n{changed}\n"
                    "Choose another folder with --out, or delete this one."
                )
            return found
        return None

    def _save(self) -> None:
        """Writes what is finished; from now on, the store as a whole is not."""
        with writing(self.folder):
            replace_text(self.folder / UNFINISHED, manifest_text(self.manifest))
            (self.folder / MANIFEST).unlink(missing_ok=True)

    # --- the tokenizer ---

    def _fitted(self) -> Recipe:
        """The fitted tokenizer, from its file where it was fitted before."""
        spec, plugins = self.request.tokenizer, self.request.plugins
        if facts := self.manifest.get("tokenizer"):
            return Recipe(spec, read_tokenizer(self.folder, facts["sha256"]), plugins)
        tokenizer = build(spec).fit(text for example in self._examples("train") for text in texts_of(example))
        text = json.dumps(tokenizer.to_json())
        with writing(self.folder):
            replace_text(self.folder / TOKENIZER, text)
        sha256 = hashlib.sha256(text.encode()).hexdigest()
        self.manifest["tokenizer"] = {"name": spec.name, "vocab_size": tokenizer.vocab_size, "sha256": sha256}
        self.manifest["dtype"] = id_type(tokenizer).name
        self.manifest["first"] = tokenizer.end_of_text
        self._save()
        self.say(f"{spec.name}: {tokenizer.vocab_size:,} ids, fitted in {time.monotonic() - self.began:.0f} s")
        return Recipe(spec, json.loads(text), plugins)

    # --- the documents ---

    def _examples(self, split: str) -> Iterator[Any]:
        stream = getattr(self.dataset, "stream", None)
        examples = iter(self.dataset.split(split)) if stream is None else stream(split, self.request.longest)
        return itertools.islice(examples, self.request.max_examples if split == "train" else None)

    def _chunks(self, split: str) -> Iterator[Chunk]:
        """The documents of a split, cut into shards and chunks by their bytes alone."""
        shard = size = in_shard = 0
        sources: list[str] = []
        contents: list[bytes] = []
        for example in self._examples(split):
            contents.append(_text(example) if self.streamed else to_json(example))
            sources.append(example.source)
            size += len(contents[-1])
            if size >= min(CHUNK, self.request.shard_size - in_shard) or len(contents) == _DOCUMENTS:
                yield Chunk(shard, sources, contents)
                in_shard += size
                sources, contents, size = [], [], 0
                if in_shard >= self.request.shard_size:
                    shard, in_shard = shard + 1, 0
        if contents:
            yield Chunk(shard, sources, contents)

    def _split(self, split: str, workers: Workers) -> None:
        """Writes the shards of a split that are not there."""
        writer = _SplitWriter(self, split)
        chunks = self._chunks(split)
        try:
            if self.streamed:
                for chunk, ids in workers.encode(chunks, writer.finished):
                    writer.take(chunk, ids)
            else:
                for chunk in chunks:
                    writer.take(chunk, None if chunk.shard in writer.finished else chunk.contents)
            writer.end()
        except BaseException:
            writer.abandon()
            raise


class _SplitWriter:
    """The shards of one split, in their order."""

    def __init__(self, preparation: _Preparation, split: str) -> None:
        self._preparation, self._split = preparation, split
        self._folder, manifest = preparation.folder, preparation.manifest
        self._first = int(manifest["first"]).to_bytes(_width(manifest["dtype"]), "little")
        self._recorded = [Shard(**facts) for facts in manifest["splits"].get(split, {}).get("shards", [])]
        self._shards: list[Shard] = []
        self._text, self._stream = hashlib.sha256(), hashlib.sha256()
        self._part: Part | None = None
        self._documents = self._bytes = 0
        self._number = -1
        whole = (n for n, shard in enumerate(self._recorded) if is_whole(self._folder, split, n, shard))
        self.finished = frozenset(whole)

    def take(self, chunk: Chunk, encoded: Ids | list[bytes] | None) -> None:
        """The next documents; without `encoded` where their shard is finished."""
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

    def end(self) -> None:
        """After the last document."""
        self._close()
        request, split = self._preparation.request, self._split
        if not self._shards:
            raise DataError(
                f"'{request.dataset.name}' has no documents in the split '{split}'. Leave it out with --splits, or "
                "give it documents."
            )
        if len(self._recorded) > len(self._shards):
            raise self._changed(f"its {split} split has fewer documents")
        documents = sum(shard.documents for shard in self._shards)
        if split == "train" and documents < (request.max_examples or 0):
            raise ConfigError(
                f"experiment.max_examples = {request.max_examples}, but '{request.dataset.name}' has {documents}."
            )
        totals = {
            "documents": documents,
            "ids": sum(shard.ids for shard in self._shards),
            "bytes": sum(shard.bytes for shard in self._shards),
            "sha256": self._stream.hexdigest(),
            "text_sha256": self._text.hexdigest(),
        }
        self._preparation.manifest["splits"][split] = {**totals, "shards": [asdict(shard) for shard in self._shards]}

    def abandon(self) -> None:
        """Removes what is unfinished."""
        if self._part is not None:
            self._part.abandon()

    def _open(self, number: int) -> None:
        self._number, self._documents, self._bytes = number, 0, 0
        if number in self.finished:
            return
        with writing(self._folder):
            if self._preparation.streamed:
                self._part = StreamPart(self._folder, self._split, number, self._first if number == 0 else b"")
            else:
                self._part = RecordsPart(self._folder, self._split, number)

    def _close(self) -> None:
        if self._number < 0:
            return
        number, text = self._number, self._text.hexdigest()
        recorded = self._recorded[number] if number < len(self._recorded) else None
        if recorded is not None and recorded.text_sha256 != text:
            raise self._changed(f"its {self._split} split is another in shard {number}")
        if self._part is None:
            assert recorded is not None
            self._shards.append(recorded)
        else:
            ids = self._part.ids
            with writing(self._folder):
                files, sizes = self._part.close()
            self._part = None
            self._shards.append(Shard(self._documents, ids, self._bytes, text, files, sizes))
            self._record()
        for piece in pieces(shard_path(self._folder, self._split, number, next(iter(self._shards[-1].files)))):
            self._stream.update(piece)

    def _record(self) -> None:
        """Writes down what is finished, and says so."""
        known = [*self._shards, *self._recorded[len(self._shards) :]]
        self._preparation.manifest["splits"][self._split] = {"shards": [asdict(shard) for shard in known]}
        self._preparation._save()
        shard = self._shards[-1]
        self._preparation.say(
            f"{self._split} {len(self._shards) - 1}: {shard.documents:,} documents, {shard.bytes / 1e6:,.1f} MB"
            + (f", {shard.ids:,} ids" if shard.ids else "")
            + f" ({time.monotonic() - self._preparation.began:.0f} s)"
        )

    def _changed(self, what: str) -> DataError:
        return DataError(
            f"the corpus has changed since {self._folder} was begun: {what}. "
            "Choose another folder with --out, or delete this one."
        )


def _text(example: Text) -> bytes:
    """The UTF-8 of a document; DataError names the one that has none."""
    try:
        return utf8(example.text)
    except DataError as error:
        raise DataError(f"{example.source}: {error}") from None


def _width(dtype: str) -> int:
    return {"uint8": 1, "uint16": 2, "uint32": 4}[dtype]
