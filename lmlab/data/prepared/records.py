"""Examples as records of an ArrayRecord and back: JSON, as they are texts and whole numbers.

Example:
  LabelledText("fine", "good", None, "a.csv:3")   ↔   {"text": "fine", "label": "good", "source": "a.csv:3"}
"""

from __future__ import annotations

import dataclasses
import itertools
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, overload

from lmlab.errors import DataError
from lmlab.examples import KINDS

_BY_NAME = {kind.__name__: kind for kind in KINDS}
_TOGETHER = 1024  # records read at a time when all are asked for


def kind_named(name: str) -> type:
    """The example kind with a name."""
    return _BY_NAME[name]


def to_json(example: Any) -> bytes:
    """An example as UTF-8 JSON, without the fields that are empty."""
    fields = ((field.name, getattr(example, field.name)) for field in dataclasses.fields(example))
    return json.dumps({name: value for name, value in fields if value not in (None, "", ())}).encode()


def from_json(kind: type, record: bytes) -> Any:
    """The example that `to_json` saved."""
    saved = json.loads(record)
    empty = {field.name: "" for field in dataclasses.fields(kind) if field.default is dataclasses.MISSING}
    values = {name: tuple(value) if isinstance(value, list) else value for name, value in saved.items()}
    tuples = {field.name: () for field in dataclasses.fields(kind) if str(field.type).startswith("tuple")}
    return kind(**{**empty, **tuples, **values})


class Records(Sequence[Any]):
    """The examples in several ArrayRecord files, read when they are asked for.

    Args:
      files: their paths, in order.
      kind: of the examples.
    """

    def __init__(self, files: Sequence[Path], kind: type) -> None:
        from array_record.python import array_record_module

        self._kind = kind
        options = "readahead_buffer_size:0,max_parallelism:0"  # what ArrayRecord advises for random access
        try:
            self._readers = [array_record_module.ArrayRecordReader(str(file), options) for file in files]
            self._ends = list(itertools.accumulate(reader.num_records() for reader in self._readers))
        except (RuntimeError, ValueError) as error:
            raise DataError(f"{', '.join(map(str, files))}: no whole ArrayRecord ({error}).") from error

    def __len__(self) -> int:
        return self._ends[-1]

    @overload
    def __getitem__(self, place: int) -> Any: ...
    @overload
    def __getitem__(self, place: slice) -> Sequence[Any]: ...
    def __getitem__(self, place: int | slice) -> Any:
        if isinstance(place, slice):
            return tuple(self[i] for i in range(*place.indices(len(self))))
        if not -len(self) <= place < len(self):
            raise IndexError(f"example {place} of {len(self)}")
        place %= len(self)
        number = next(n for n, end in enumerate(self._ends) if place < end)
        before = self._ends[number - 1] if number else 0
        return from_json(self._kind, self._readers[number].read([place - before])[0])

    def __iter__(self) -> Iterator[Any]:
        for reader in self._readers:
            count = reader.num_records()
            for start in range(0, count, _TOGETHER):
                for record in reader.read(start, min(start + _TOGETHER, count)):
                    yield from_json(self._kind, record)
