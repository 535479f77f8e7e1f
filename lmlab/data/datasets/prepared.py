"""Stores that `lmlab data prepare` made: ids, memory-mapped, or examples, read when they are asked for."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from lmlab.contracts import Tokenizer, Tokens
from lmlab.data.prepared.records import Records, kind_named
from lmlab.data.prepared.store import Holds, Store
from lmlab.errors import ConfigError
from lmlab.registry import datasets


@datasets.register("prepared")
@dataclass(frozen=True)
class Prepared:
    """A corpus that was tokenised once; it brings its tokenizer, so that `experiment.tokenizer` stays unset.

    Nothing is copied but the rows of a batch. Every file is checked against its sha256 before its first use.

    Args:
      path: the folder that `lmlab data prepare` wrote.
    """

    example: ClassVar[type] = Tokens
    TINY: ClassVar[str] = "prepared.path = '{folder}/prepared'"

    path: str

    def split(self, name: str) -> tuple[Tokens, ...]:
        """The ids of a split, as one stream; DataError where it was not prepared, or a file is damaged."""
        return (Tokens(self._store.ids(name), self.path, self._store.starts(name)),)

    @property
    def tokenizer(self) -> Tokenizer:
        """The tokenizer that the ids were made with, fitted."""
        return self._store.tokenizer

    @property
    def vocab(self) -> int:
        """Number of ids, V."""
        return int(self._store.manifest["tokenizer"]["vocab_size"])

    def fingerprint(self) -> dict[str, Any]:
        """Contents by split; how the store is cut into shards and where it lies do not matter."""
        return self._store.fingerprint()

    @functools.cached_property
    def _store(self) -> Store:
        return _opened(self.path, "ids")


@datasets.register("prepared_examples")
@dataclass(frozen=True)
class PreparedExamples:
    """Examples that are not one stream (pairs, labelled, tagged, questions, ...), prepared once.

    Where `experiment.tokenizer` stays unset, the tokenizer that was fitted then serves.

    Args:
      path: the folder that `lmlab data prepare` wrote.
    """

    TINY: ClassVar[str] = """
    prepared_examples.path = '{folder}/prepared_examples'
    experiment.loss = @autoregressive
    """

    path: str

    @property
    def example(self) -> type:
        """The kind of the examples that were prepared."""
        return kind_named(self._store.manifest["example"])

    @property
    def labels(self) -> tuple[str, ...]:
        """Of whole examples, sorted; those of the dataset that was prepared."""
        return tuple(self._store.manifest["labels"])

    @property
    def tags(self) -> tuple[str, ...]:
        """Of words, sorted; those of the dataset that was prepared."""
        return tuple(self._store.manifest["tags"])

    def split(self, name: str) -> Sequence[Any]:
        """The examples of a split; DataError where it was not prepared, or a file is damaged."""
        return Records(self._store.files(name, "examples"), self.example)

    @property
    def tokenizer(self) -> Tokenizer:
        """The tokenizer that was fitted on the training split."""
        return self._store.tokenizer

    def fingerprint(self) -> dict[str, Any]:
        """Contents by split; how the store is cut into shards and where it lies do not matter."""
        return self._store.fingerprint()

    @functools.cached_property
    def _store(self) -> Store:
        return _opened(self.path, "examples")


def _opened(path: str, holds: Holds) -> Store:
    """The store in a folder; ConfigError where it holds the other thing."""
    store = Store(Path(path).expanduser())
    if store.holds != holds:
        other = "prepared" if store.holds == "ids" else "prepared_examples"
        raise ConfigError(f"{path} holds {store.holds}: read it with experiment.dataset = @{other}.")
    return store
