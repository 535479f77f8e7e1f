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

import numpy as np

from lmlab.config import build, spec_to_json
from lmlab.contracts import Dataset, Spec, Text
from lmlab.data.fingerprints import compare_fingerprints
from lmlab.data.prepared.records import to_json
from lmlab.data.prepared.shards import Shards
from lmlab.data.prepared.store import (
    FORMAT,
    MANIFEST,
    TOKENIZER,
    UNFINISHED,
    Shard,
    manifest_text,
    read_manifest,
    read_tokenizer,
)
from lmlab.data.prepared.workers import Chunk, Recipe, Workers, id_type
from lmlab.data.prepared.writing import (
    Part,
    RecordsPart,
    StreamPart,
    held,
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
        name = "prepared" if self.streamed else "prepared_examples"
        self.say(
            f"{self.folder}: prepared in {self._seconds()}. Read it: experiment.dataset = @{name}, "
            f"{name}.path = '{self.folder}', experiment.tokenizer = None"
        )
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
        self.manifest["end_of_text"] = tokenizer.end_of_text
        self._save()
        self.say(f"{spec.name}: {tokenizer.vocab_size:,} ids, fitted in {self._seconds()}")
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
        found = self.manifest["splits"].get(split, {}).get("shards", [])
        shards = Shards(self.folder, split, [Shard(**facts) for facts in found], self._part, self._record)
        chunks = self._chunks(split)
        try:
            if self.streamed:
                for chunk, ids in workers.encode(chunks, shards.finished):
                    shards.take(chunk, ids)
            else:
                for chunk in chunks:
                    shards.take(chunk, None if chunk.shard in shards.finished else chunk.contents)
            totals = shards.end()
        except BaseException:
            shards.abandon()
            raise
        self._check_count(split, totals["documents"])
        self.manifest["splits"][split] = totals

    def _part(self, split: str, number: int) -> Part:
        if not self.streamed:
            return RecordsPart(self.folder, split, number)
        end_of_text = np.array([self.manifest["end_of_text"]], np.dtype(self.manifest["dtype"]).newbyteorder("<"))
        return StreamPart(self.folder, split, number, end_of_text.tobytes() if number == 0 else b"")

    def _check_count(self, split: str, documents: int) -> None:
        name, most = self.request.dataset.name, self.request.max_examples
        if not documents:
            raise DataError(
                f"'{name}' has no documents in the split '{split}'. Leave it out with --splits, or give it documents."
            )
        if split == "train" and most is not None and documents < most:
            raise ConfigError(f"experiment.max_examples = {most}, but '{name}' has {documents}.")

    def _record(self, split: str, known: list[Shard], made: int) -> None:
        """Writes down which shards are finished, and says which one was made."""
        self.manifest["splits"][split] = {"shards": [asdict(shard) for shard in known]}
        self._save()
        shard = known[made]
        ids = f", {shard.ids:,} ids" if shard.ids else ""
        size = f"{shard.documents:,} documents, {shard.bytes / 1e6:,.1f} MB"
        self.say(f"{split} {made}: {size}{ids} ({self._seconds()})")

    def _seconds(self) -> str:
        return f"{time.monotonic() - self.began:.0f} s"


def _text(example: Text) -> bytes:
    """The UTF-8 of a document; DataError names the one that has none."""
    try:
        return utf8(example.text)
    except DataError as error:
        raise DataError(f"{example.source}: {error}") from None
