"""Documents to ids in several processes, in the documents' order: the result does not depend on how many there are.

Processes, not threads: what a tokenizer does beside its compiled part holds the interpreter. They are started anew
(spawned), as a fork of a process with threads in it may hang.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from types import TracebackType
from typing import Any, NamedTuple

import numpy as np

from lmlab import registry
from lmlab.config import build
from lmlab.contracts import Spec, Text, Tokenizer
from lmlab.data.features.encoding import encoded
from lmlab.errors import DataError

Ids = tuple[bytes, np.ndarray]
"""The bytes of the ids of some documents, each with its end-of-text, and the number of ids of each, int64."""


class Chunk(NamedTuple):
    """Some documents that follow one another.

    Attributes:
      shard: the number of the shard that they belong to.
      sources: where each stands, for messages.
      contents: each as UTF-8: its text, or JSON.
    """

    shard: int
    sources: list[str]
    contents: list[bytes]


@dataclass(frozen=True)
class Recipe:
    """A fitted tokenizer as plain data, for processes that have to make it again.

    Args:
      spec: of the tokenizer.
      saved: its vocabulary, as `to_json` gave it.
      plugins: what has to be loaded first.
    """

    spec: Spec
    saved: Mapping[str, Any]
    plugins: Sequence[str] = ()

    def tokenizer(self) -> Tokenizer:
        """The fitted tokenizer."""
        registry.scan_installed_plugins()
        for plugin in self.plugins:
            registry.load_plugin(plugin)
        return build(self.spec).from_json(self.saved)


def id_type(tokenizer: Tokenizer) -> np.dtype:
    """The smallest sufficient unsigned type of a tokenizer's ids, little-endian."""
    return np.min_scalar_type(tokenizer.vocab_size - 1).newbyteorder("<")


def to_ids(contents: Sequence[bytes], tokenizer: Tokenizer) -> Ids:
    """Documents to what is written to a shard."""
    dtype = id_type(tokenizer)
    end = np.array([tokenizer.end_of_text], dtype)
    parts, lengths = [], []
    for ids in tokenizer.encode_batch([content.decode() for content in contents]):
        parts += [ids.astype(dtype), end]
        lengths.append(len(ids) + 1)
    return np.concatenate(parts).tobytes(), np.array(lengths, np.int64)


class Workers:
    """Turns chunks into ids. Use it in a `with`.

    Args:
      recipe: of the tokenizer.
      count: processes; 1 is this one.
    """

    def __init__(self, recipe: Recipe, count: int) -> None:
        self._tokenizer = recipe.tokenizer()
        self._count = count
        self._pool: ProcessPoolExecutor | None = None
        if count > 1:
            spawn = multiprocessing.get_context("spawn")
            self._pool = ProcessPoolExecutor(count, spawn, _begin, (recipe,))

    def __enter__(self) -> Workers:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._pool is not None:
            self._pool.shutdown(cancel_futures=True)

    def encode(self, chunks: Iterable[Chunk], finished: frozenset[int]) -> Iterator[tuple[Chunk, Ids | None]]:
        """Every chunk with its ids, in the chunks' order; None for those of the shards that are `finished`.

        Only a few chunks are read ahead, however many there are.

        Raises:
          DataError: a document cannot be encoded (the message names it), or a process was killed.
        """
        waiting: deque[tuple[Chunk, Future[Ids] | None]] = deque()
        for chunk in chunks:
            if self._pool is None:
                yield chunk, None if chunk.shard in finished else self._here(chunk)
                continue
            future = None if chunk.shard in finished else self._submit(chunk)
            waiting.append((chunk, future))
            if len(waiting) > 2 * self._count:
                yield self._result(*waiting.popleft())
        while waiting:
            yield self._result(*waiting.popleft())

    def _submit(self, chunk: Chunk) -> Future[Ids]:
        assert self._pool is not None
        try:
            return self._pool.submit(_encode, chunk.contents)
        except BrokenProcessPool as error:
            raise _killed() from error

    def _result(self, chunk: Chunk, future: Future[Ids] | None) -> tuple[Chunk, Ids | None]:
        if future is None:
            return chunk, None
        try:
            return chunk, future.result()
        except BrokenProcessPool as error:
            raise _killed() from error
        except DataError:
            return chunk, self._here(chunk)  # raises it again, with the document's name

    def _here(self, chunk: Chunk) -> Ids:
        try:
            return to_ids(chunk.contents, self._tokenizer)
        except DataError:
            texts = [content.decode() for content in chunk.contents]
            documents = [Text(text, source) for text, source in zip(texts, chunk.sources, strict=True)]
            for _ in encoded(documents, texts, self._tokenizer):
                pass
            raise


def _killed() -> DataError:
    return DataError(
        "a worker process was killed, as the system does when memory runs out. Run the same command again with fewer "
        "--workers: it goes on after the last finished shard."
    )


_tokenizer: Tokenizer
"""Of a worker process."""


def _begin(recipe: Recipe) -> None:
    """Makes a worker process ready: it ends with its parent, and leaves Ctrl-C to it."""
    global _tokenizer
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    os.environ["TOKENIZERS_PARALLELISM"] = "false"  # there is a process for each core already
    _tokenizer = recipe.tokenizer()


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)


def _encode(contents: list[bytes]) -> Ids:
    return to_ids(contents, _tokenizer)
