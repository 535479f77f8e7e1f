"""Several arrays as one, without a copy: what memory-mapped shards are read through."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np


def joined(parts: Sequence[np.ndarray], add: Sequence[int] | None = None) -> Any:
    """The 1-d arrays `parts` one after the other: itself where there is one, else a `Joined`."""
    if len(parts) == 1 and not any(add or ()):
        return parts[0]
    return Joined(parts, add)


class Joined:
    """1-d arrays of one type, one after the other; what is asked for is gathered, and nothing else is read.

    Example: parts [5, 6], [7], add [0, 10]:
      found[[2, 0]] → [17, 5]
      found[0:2]    → [5, 6]       # inside one part with nothing to add: a view of it

    Args:
      parts: the arrays.
      add: what is added to the numbers of each (None: nothing), which are then int64.
    """

    ndim = 1

    def __init__(self, parts: Sequence[np.ndarray], add: Sequence[int] | None = None) -> None:
        self.parts = tuple(parts)
        self._add = None if add is None else np.array(add, np.int64)
        self._ends = np.cumsum([len(part) for part in self.parts])
        self.dtype = self.parts[0].dtype if add is None else np.dtype(np.int64)

    def __len__(self) -> int:
        return int(self._ends[-1])

    @property
    def shape(self) -> tuple[int]:
        """As an array's."""
        return (len(self),)

    @property
    def size(self) -> int:
        """As an array's."""
        return len(self)

    def __getitem__(self, places: Any) -> Any:
        if isinstance(places, slice):
            return self._slice(*places.indices(len(self)))
        asked = np.asarray(places)
        if asked.dtype.kind not in "iu":
            raise TypeError(f"places are whole numbers or a slice, not {asked.dtype}")
        found = self._gather(asked.ravel().astype(np.int64, copy=False)).reshape(asked.shape)
        return found if asked.ndim else found[()]

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        if copy is False:
            raise ValueError("several parts are no single array without a copy")
        return np.asarray(self[:], dtype)

    def _slice(self, start: int, stop: int, step: int) -> np.ndarray:
        if step != 1:
            return self[np.arange(start, stop, step)]
        found = [np.empty(0, self.dtype)]
        for number, (part, end) in enumerate(zip(self.parts, self._ends.tolist(), strict=True)):
            begin = end - len(part)
            if start < end and stop > begin:
                found.append(self._plus(part[max(start - begin, 0) : stop - begin], number))
        return found[1] if len(found) == 2 else np.concatenate(found)

    def _gather(self, places: np.ndarray) -> np.ndarray:
        places = np.where(places < 0, places + len(self), places)
        if len(places) and (places.min() < 0 or places.max() >= len(self)):
            raise IndexError(f"a place outside of {len(self)} numbers")
        part_of = np.searchsorted(self._ends, places, side="right")
        found = np.empty(len(places), self.dtype)
        for number in np.unique(part_of).tolist():
            here = part_of == number
            part = self.parts[number]
            found[here] = self._plus(part[places[here] - (self._ends[number] - len(part))], number)
        return found

    def _plus(self, numbers: np.ndarray, part: int) -> np.ndarray:
        return numbers if self._add is None else numbers.astype(np.int64) + self._add[part]
