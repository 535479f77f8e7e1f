"""Datasets through the Hugging Face library `datasets`: of the hub, saved on disk, or files in a format it reads."""

from __future__ import annotations

import functools
from abc import abstractmethod
from array import array
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from lmlab.data.corpus import SPLITS, Corpus, split_of
from lmlab.data.file_splits import Splits, check_shares, split_key
from lmlab.data.files import LeftOut, Malformed, OnMalformed, Paths, files
from lmlab.data.optional import imported
from lmlab.data.tables import member
from lmlab.errors import ConfigError, DataError, LmlabError
from lmlab.ranges import Count, ProperFraction

_AT_A_TIME = 1000
_SAVED = ("dataset_dict.json", "state.json")
"""What `save_to_disk` leaves in a folder: of several splits, of one."""

Make = Callable[[Sequence[Any], str], Any]
"""The example in the wanted columns of a row that stands somewhere; None for an empty one, Malformed if it is none."""


@dataclass(frozen=True)
class HubSplits(Splits):
    """Splits of a dataset that `datasets` loads; no code of the dataset's is run.

    Rows stay in the library's memory-mapped Arrow files, and examples are made when they are asked for. Streamed rows
    have no places and perhaps no end: the first `take` of each split are read, in their order, and held in memory, so
    that batch k is the same function of (seed, k) as with any other dataset.

    Args:
      path: a name on the hub, a folder (of files, or of `save_to_disk`), or a format: json, parquet, csv, arrow, text.
      config: which of the dataset's configurations.
      revision: the commit, tag or branch on the hub.
      train, valid, test: what the dataset calls the splits; None: a share of train.
      train_files, valid_files, test_files: paths, globs or addresses of the files, where `path` is a format.
      valid_share, test_share: part of train for the splits that are None, or have no files.
      streaming: read rows as they come, without fetching what is behind the last one.
      take: only so many first rows of each split.
      malformed: `refuse` names the first malformed row; `drop` leaves such rows out and counts them.
    """

    path: str
    config: str | None = None
    revision: str | None = None
    train: str = "train"
    valid: str | None = "validation"
    test: str | None = "test"
    train_files: Paths = ()
    valid_files: Paths = ()
    test_files: Paths = ()
    valid_share: ProperFraction = 0.05
    test_share: ProperFraction = 0.05
    streaming: bool = False
    take: Count | None = None
    malformed: OnMalformed = "refuse"

    @property
    @abstractmethod
    def _columns(self) -> tuple[str, ...]:
        """The columns that an example is made of."""

    @staticmethod
    @abstractmethod
    def _example(values: Sequence[Any], where: str) -> Any:
        """See `Make`."""

    @functools.cached_property
    def _read(self) -> tuple[Corpus[Any], LeftOut]:
        called = {split: self._called(split) for split in SPLITS}
        valid, test = (0.0 if called["valid"] else self.valid_share), (0.0 if called["test"] else self.test_share)
        check_shares(self.name, valid, test)
        loaded = self._loaded(called)
        left_out = LeftOut(self.name, self.malformed)
        found: dict[str, Sequence[Any]] = {}
        for split, name in called.items():
            if name is not None and name in loaded:
                rows = self._rows(loaded[name], f"{self.path}, split {name}")
                shares = (valid, test) if split == "train" else (0.0, 0.0)
                parts = rows.held(shares, left_out) if self.streaming else rows.placed(shares, left_out)
                found |= parts if split == "train" else {split: parts.get("train", ())}
        way_out = (
            f"{self.path} calls its splits {', '.join(loaded)}: name one of them by {self.name}.valid or "
            f"{self.name}.test, or set it to None for a share of train."
        )
        return Corpus(self.name, cast(Any, found), way_out), left_out

    def _called(self, split: str) -> str | None:
        """What the library calls a split; None for one that is a share of train."""
        if self.train_files:
            return split if getattr(self, f"{split}_files") else None
        return getattr(self, split)

    def _loaded(self, called: Mapping[str, str | None]) -> Mapping[str, Any]:
        """What the library gives, by its own names of the splits."""
        if self.streaming and self.take is None:
            raise ConfigError(f"{self.name}.streaming: set {self.name}.take, the number of rows to read and to hold.")
        library = imported("datasets", self.name, "hf")
        saved = any((Path(self.path).expanduser() / name).is_file() for name in _SAVED)
        with _in_one_line(self.name, self.path):
            if not saved:
                found = library.load_dataset(
                    self.path, self.config, data_files=self._files(called), revision=self.revision,
                    streaming=self.streaming,
                )  # fmt: skip
            else:
                found = library.load_from_disk(str(Path(self.path).expanduser()))
        if not isinstance(found, dict):
            found = {self.train: found}
        if called["train"] not in found:
            raise DataError(f"{self.name}: {self.path} has no split '{called['train']}'; there is: {', '.join(found)}.")
        return found

    def _files(self, called: Mapping[str, str | None]) -> dict[str, list[str]] | None:
        """The files of every split, where they were named."""
        if not self.train_files:
            return None
        return {
            split: self._named(getattr(self, f"{split}_files"), f"{self.name}.{split}_files")
            for split, name in called.items()
            if name
        }

    @staticmethod
    def _named(patterns: Paths, where: str) -> list[str]:
        """Local files by path or glob; addresses (`https://`, `hf://`) as they are."""
        several = (patterns,) if isinstance(patterns, str) else patterns
        return [file for pattern in several for file in ([pattern] if "://" in pattern else files(pattern, where))]

    def _rows(self, table: Any, where: str) -> _Rows:
        """The wanted columns of the library's rows; DataError if one is not there."""
        there = table.column_names  # None for a stream whose columns are not known
        outer = {column: column if column in (there or ()) else column.split(".", 1)[0] for column in self._columns}
        if there is not None:
            if missing := [column for column, begin in outer.items() if begin not in there]:
                raise DataError(f"{where}: no column '{missing[0]}'; there is: {', '.join(there)}.")
            table = table.select_columns(list(dict.fromkeys(outer.values())))
        features = table.features or {}
        names = {column: features[column].names for column in features if hasattr(features[column], "names")}
        if self.take is not None:
            table = table.take(self.take)
        return _Rows(table, self._columns, names, self._example, where)


@dataclass(frozen=True)
class _Rows:
    """Rows of the library, and how examples are made of them.

    Args:
      table: a `datasets.Dataset`, or an `IterableDataset`.
      columns: what an example is made of.
      names: of the columns that hold classes as numbers, the classes' names.
      make: see `Make`.
      where: what the rows are, for messages.
    """

    table: Any
    columns: tuple[str, ...]
    names: Mapping[str, Sequence[str]]
    make: Make
    where: str

    def held(self, shares: tuple[float, float], left_out: LeftOut) -> dict[str, Sequence[Any]]:
        """The examples by split, in memory; what no share takes is `train`."""
        found: dict[str, list[Any]] = {}
        for _, split, example in self._kept(shares, left_out):
            found.setdefault(split, []).append(example)
        return {split: tuple(examples) for split, examples in found.items()}

    def placed(self, shares: tuple[float, float], left_out: LeftOut) -> dict[str, Sequence[Any]]:
        """The same with the examples left where they are: only their places are in memory."""
        found: dict[str, array[int]] = {}
        for place, split, _ in self._kept(shares, left_out):
            found.setdefault(split, array("q")).append(place)
        return {split: HubExamples(self, places) for split, places in found.items()}

    def _kept(self, shares: tuple[float, float], left_out: LeftOut) -> Iterator[tuple[int, str, Any]]:
        """Place, split and example of every row that is whole."""
        for place, record in enumerate(self._records(lambda: self.table.iter(batch_size=_AT_A_TIME))):
            with left_out.row(self._at(place)):
                example = self.example(place, record)
                if example is None:
                    left_out.counts["empty"] += 1
                else:
                    yield place, split_of(split_key(example), *shares), example

    def _records(self, batches: Callable[[], Iterable[Mapping[str, Sequence[Any]]]]) -> Iterator[dict[str, Any]]:
        """Row by row what the library gives in columns."""
        with _in_one_line(self.where, "it"):
            for batch in batches():
                yield from (dict(zip(batch, values, strict=True)) for values in zip(*batch.values(), strict=True))

    def _at(self, place: int) -> str:
        return f"{self.where}, row {place}"

    def at(self, places: Sequence[int]) -> Iterator[Any]:
        """The examples at some places, of rows that are known to be whole."""
        starts = range(0, len(places), _AT_A_TIME)
        records = self._records(lambda: (self.table[list(places[start : start + _AT_A_TIME])] for start in starts))
        for place, record in zip(places, records, strict=True):
            yield self.example(place, record)

    def example(self, place: int, record: Mapping[str, Any]) -> Any:
        """The example in a row; Malformed where it is none."""
        return self.make([self._value(record, column) for column in self.columns], self._at(place))

    def _value(self, record: Mapping[str, Any], column: str) -> Any:
        value, names = member(record, column), self.names.get(column)
        if names is None or not isinstance(value, int):
            return value
        if not 0 <= value < len(names):  # -1 where the labels of a test set are kept secret
            raise Malformed(f"no {column}: the class {value} has no name.")
        return names[value]


class HubExamples(Sequence[Any]):
    """Examples that are made of their rows when they are asked for."""

    def __init__(self, rows: _Rows, places: array[int]) -> None:
        self._rows, self._places = rows, places

    def __len__(self) -> int:
        return len(self._places)

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            return HubExamples(self._rows, self._places[index])
        place = self._places[index]
        return self._rows.example(place, self._rows.table[place])

    def __iter__(self) -> Iterator[Any]:
        return self._rows.at(self._places)


@contextmanager
def _in_one_line(dataset: str, what: str) -> Iterator[None]:
    """Turns what the library raises, of whatever type, into a DataError with its first line."""
    try:
        yield
    except (LmlabError, Malformed):
        raise
    except Exception as error:
        reason = error.__cause__ if type(error).__name__ == "DatasetGenerationError" and error.__cause__ else error
        said = next(iter(str(reason).strip().splitlines()), "") or type(reason).__name__
        raise DataError(f"{dataset}: {what} cannot be loaded: {said}") from error
