"""Rows of like length in one batch, padded to one of a few widths: less padding, and as many programs as widths."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Protocol

import numpy as np

from lmlab.data.features.rows import Batch, Rows
from lmlab.data.order import Order
from lmlab.errors import ConfigError


class OneExampleRows(Rows, Protocol):
    """Rows that know how much of each is filled."""

    @property
    def lengths(self) -> np.ndarray:
        """Places that each row fills of its longest field, (N,)."""
        ...


class Bucketed:
    """Rows of one example each, sorted into buckets by length; every batch is of one bucket, and as wide as that.

    So that each bucket is whole batches, its longest rows go to the next one, and the fewer than B longest rows of all
    are left out of training, which `notes` counts.

    Example, with B = 3 and widths (3, 5):
      lengths 1 3 2 5 4 3    →    width 3: rows 0, 2, 1 (1, 2, 3 long)    width 5: rows 5, 4, 3 (3, 4, 5 long)

    Args:
      rows: what is sorted.
      widths: of the buckets, rising; the last one is that of the rows.
      batch: rows per batch, B.

    Raises:
      ConfigError: the rows hold several examples each, or do not fill one batch.
    """

    def __init__(self, rows: Rows, widths: Sequence[int], batch: int) -> None:
        lengths = getattr(rows, "lengths", None)
        if lengths is None:
            raise ConfigError(
                "experiment.buckets is for rows that hold one example each: leave it out, or set packing = 'windows' "
                "and choose a dataset and a loss whose rows are examples."
            )
        self._rows, self.ids, self.targets, self.widths = rows, rows.ids, rows.targets, tuple(widths)
        self._buckets = list(_filled(lengths, widths, batch))
        self._batch = batch
        self._width = np.zeros(len(rows), np.int64)
        for bucket, width in zip(self._buckets, widths, strict=True):
            self._width[bucket] = width
        used = sum(map(len, self._buckets))
        if not used:
            raise ConfigError(f"experiment.buckets: {len(rows)} rows do not fill one batch of {batch}.")
        places = sum(len(bucket) * width for bucket, width in zip(self._buckets, widths, strict=True))
        filled = sum(int(lengths[bucket].sum()) for bucket in self._buckets)
        self.notes = {**rows.notes, "padding": 1 - filled / places}
        if len(rows) - used:
            self.notes["longest rows left out"] = len(rows) - used

    def __len__(self) -> int:
        return sum(map(len, self._buckets))

    def order(self, seed: int) -> BucketOrder:
        """The order of training."""
        return BucketOrder(self._buckets, self._batch, seed)

    def gather(self, rows: np.ndarray, places: np.ndarray | None = None) -> Batch:
        """These rows, which must be of one bucket, as wide as that."""
        return cut_to(self._rows.gather(rows, places), int(self._width[rows].max(initial=0)))

    def sample(self, width: int) -> Batch:
        """Some row, as wide as a batch of a bucket: to ask for shapes."""
        return cut_to(self._rows.gather(np.zeros(1, np.int64)), width)


class BucketOrder:
    """Which rows batch k holds: the batches of all buckets in an order drawn anew each epoch, and so their rows.

    Args:
      buckets: rows of each bucket, a multiple of `batch` each.
      batch: rows per batch, B.
      seed: any integer.
    """

    def __init__(self, buckets: Sequence[np.ndarray], batch: int, seed: int) -> None:
        self._buckets, self._size = buckets, batch
        self._ends = np.cumsum([len(bucket) // batch for bucket in buckets])
        self._batches = Order(int(self._ends[-1]), seed)
        self._within = [Order(max(len(bucket), 1), seed + 1 + i) for i, bucket in enumerate(buckets)]

    def __getitem__(self, places: range) -> np.ndarray:
        """Rows at `places`, int64."""
        parts = [np.empty(0, np.int64)]
        for k in range(places.start // self._size, -(-places.stop // self._size)):
            first = k * self._size
            rows = self._batch(k)
            parts.append(rows[max(places.start - first, 0) : places.stop - first])
        return np.concatenate(parts)[:: places.step]

    def _batch(self, k: int) -> np.ndarray:
        epoch = k // int(self._ends[-1])
        number = int(self._batches[range(k, k + 1)][0])
        bucket = int(np.searchsorted(self._ends, number, side="right"))
        rows = self._buckets[bucket]
        first = (number - int(self._ends[bucket])) * self._size + len(rows)
        start = epoch * len(rows) + first
        return rows[self._within[bucket][range(start, start + self._size)]]


def _filled(lengths: np.ndarray, widths: Sequence[int], batch: int) -> Iterator[np.ndarray]:
    """Rows of each bucket, shortest first; what does not fill a batch goes on to the next bucket."""
    order = np.argsort(lengths, kind="stable")
    begin = 0
    for width in widths:
        end = int(np.searchsorted(lengths[order], width, side="right"))
        end = begin + (end - begin) // batch * batch
        yield order[begin:end]
        begin = end


def cut_to(batch: Mapping[str, np.ndarray], width: int) -> Batch:
    """The fields that have positions, with the first `width` of them; copies, so that devices may keep them."""
    return {name: values if values.ndim < 2 else values[..., :width].copy() for name, values in batch.items()}
