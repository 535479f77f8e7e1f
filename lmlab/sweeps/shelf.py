"""Data that several trials of one process read: a corpus is read, and a vocabulary fitted, once."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from lmlab.contracts import Dataset, Spec
from lmlab.data import Data, JointData, open_data
from lmlab.data.fingerprints import digest_json
from lmlab.training.program import Program

MOST = 8
"""How many opened data are kept of a dataset: those of as many seeds."""


@dataclass
class _Read:
    """What was read of one dataset: itself, the vocabularies fitted on it, and its rows."""

    spec: Spec
    dataset: Dataset
    vocabularies: dict[tuple[Spec, int | None], Mapping[str, Any]] = field(default_factory=dict)
    opened: OrderedDict[str, Data | JointData] = field(default_factory=OrderedDict)


class Shelf:
    """Keeps what was read of one dataset, until another one is asked for."""

    def __init__(self) -> None:
        self._read: _Read | None = None

    def open(self, program: Program, saved_tokenizer: Mapping[str, Any] | None) -> Data | JointData:
        """The data of a program: those of an earlier one, where it reads the same rows in the same order.

        Args:
          program: of which nothing is asked but what it reads.
          saved_tokenizer: the vocabulary in the run folder, of a run that goes on.

        Raises:
          ConfigError, DataError: as `data.open_data`.
        """
        read, reads, tokenizer = self._of(program), program.reads(), program.experiment.tokenizer
        fitted = None if tokenizer is None else (tokenizer, program.experiment.max_examples)
        saved = saved_tokenizer or (fitted and read.vocabularies.get(fitted))
        data = read.opened.get(_key(tokenizer, saved, reads))
        if data is None:
            data = open_data(read.dataset, program.make_tokenizer(), **reads, saved_tokenizer=saved)
            if fitted and data.tokenizer is not None and saved is None:
                saved = read.vocabularies[fitted] = data.tokenizer.to_json()
        key = _key(tokenizer, saved, reads)
        read.opened[key] = data
        read.opened.move_to_end(key)
        if len(read.opened) > MOST:
            read.opened.popitem(last=False)
        return data

    def _of(self, program: Program) -> _Read:
        """What was read of the program's dataset."""
        spec = program.experiment.dataset
        if self._read is None or self._read.spec != spec:
            self._read = None  # before the next one takes memory
            self._read = _Read(spec, program.make_dataset())
        return self._read


def _key(tokenizer: Spec | None, vocabulary: Mapping[str, Any] | None, reads: Mapping[str, Any]) -> str:
    """What decides the rows of a dataset and their order."""
    return f"{tokenizer} {digest_json(vocabulary)} {sorted(reads.items())}"
