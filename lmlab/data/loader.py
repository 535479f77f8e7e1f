"""The loader: a dataset opened for training and evaluation, in which batch k is a pure function of (seed, k).

Devices, processes, workers and restarts do not enter: a process asks for its rows of batch k. The state of the
loader is therefore one integer, and the fingerprint below, which tells whether k still means the same.
"""

from __future__ import annotations

import functools
import sys
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, TypeVar, cast

import numpy as np

from lmlab.contracts import Dataset
from lmlab.data.accounting import TextTables, account, text_tables
from lmlab.data.features import Batch, Rows, Setting
from lmlab.data.features.buckets import Bucketed, BucketOrder
from lmlab.data.features.lanes import Lanes
from lmlab.data.features.mixing import Mixed, MixedOrder
from lmlab.data.fingerprints import digest, digest_json
from lmlab.data.generated.drawing import ENDLESS
from lmlab.data.order import InOrder, Order
from lmlab.data.prefetch import Prefetch
from lmlab.errors import DataError
from lmlab.examples import IDS, texts_of
from lmlab.registry import name_of

if TYPE_CHECKING:
    import grain

T = TypeVar("T")

_TOGETHER = 1 << 24  # ids looked at together: they may be a memory map of more than the memory
_GATHERED = 1 << 20  # ids of rows that are made at once to be counted
_COUNTED = 1 << 13  # rows of an endless split of which ids are counted


class Data:
    """A dataset with its tokenizer: training batches by number, and evaluation batches of every split.

    Splits are read and turned into ids when they are first asked for. Made by `opening.open_data`.
    """

    def __init__(
        self,
        name: str,
        dataset: Dataset,
        setting: Setting,
        rows: Callable[[str, bool], Rows],
        facts: dict[str, Any],
    ) -> None:
        self.name = name
        self.tokenizer = setting.tokenizer
        self.special_ids = setting.special_ids
        self.labels = setting.labels
        self.tags = setting.tags
        self._dataset = dataset
        self._rows = functools.cache(rows)
        self._facts = facts

    @property
    def dataset(self) -> Dataset:
        """Where the examples come from: for those who read these themselves."""
        return self._dataset

    @property
    def vocab(self) -> int:
        """Number of ids, V."""
        return cast(Any, self._dataset).vocab if self.tokenizer is None else self.tokenizer.vocab_size

    @property
    def nats(self) -> Callable[[np.ndarray], np.ndarray] | None:
        """The exact -log p of sequences under the law that the data were drawn from, (N, T); None where none is known.

        See `contracts.Dataset`.
        """
        return getattr(self._dataset, "nats", None)

    @functools.cached_property
    def text_tables(self) -> TextTables | None:
        """Bytes and words behind ids; None for a dataset of ids, whose text is not known."""
        return None if self.tokenizer is None else text_tables(self.tokenizer)

    @functools.cache  # noqa: B019  (as long as the data itself)
    def scales(self, split: str) -> tuple[float, float]:
        """Bytes of a split's texts per byte that its ids stand for, and words per word.

        1 and 1 for a tokenizer that gives back what it reads. With others an exact total is this times that of the ids.
        """
        tokenizer = self.tokenizer
        exact = tokenizer is None or not (getattr(tokenizer, "lossy", False) or hasattr(tokenizer, "unknown"))
        if tokenizer is None or exact or self._dataset.example in IDS:
            return 1.0, 1.0
        found = account(tokenizer, [text for example in self._dataset.split(split) for text in texts_of(example)])
        return found.bytes / max(found.bytes_of_ids, 1), found.words / max(found.words_of_ids, 1)

    @functools.cached_property
    def target_counts(self) -> np.ndarray:
        """How often each id is to be predicted in the training split, (V,) int64; in an endless one's first rows."""
        rows, found = self._rows("train", True), np.zeros(self.vocab, np.int64)
        counted = len(rows) if len(rows) < ENDLESS else _COUNTED
        together = max(1, _GATHERED // int(self._facts["seq_len"]))
        for first in range(0, counted, together):
            batch = rows.gather(np.arange(first, min(first + together, counted)))
            found += np.bincount(batch["targets"][batch["weights"] > 0], minlength=self.vocab)
        return found

    @functools.cached_property
    def train(self) -> TrainBatches:
        """The training split; DataError if it does not fill one row."""
        rows = self._rows("train", True)
        if not len(rows):
            size = f"seq_len + 1 = {self._facts['seq_len'] + 1} tokens"
            lanes = self._facts["packing"] == "contiguous"
            raise DataError(
                f"{self.name}: the training split is shorter than one window of {size}"
                f"{' for each row of a batch' * lanes}. Give it more data, or lower experiment.seq_len"
                f"{' or experiment.global_batch_size' * lanes}."
            )
        tokenizer = self.tokenizer and {
            "name": name_of(self.tokenizer),
            "vocab_size": self.tokenizer.vocab_size,
            "sha256": digest_json(self.tokenizer.to_json()),
        }
        dataset = {"name": self.name, **self._dataset.fingerprint()}
        return TrainBatches(rows, {**self._facts, "tokenizer": tokenizer, "dataset": dataset})

    def split(self, name: str) -> EvalBatches:
        """A split for evaluation, each of its tokens predicted once; DataError if the dataset does not have it."""
        rows = self._rows(name, False)
        if not rows.targets:
            raise DataError(
                f"{self.name}: there is nothing to predict in the split '{name}': it holds one token, or all that is "
                f"to be predicted lies behind experiment.seq_len = {self._facts['seq_len']}."
            )
        return EvalBatches(rows, self._facts, getattr(self.tokenizer, "unknown", None))


class BatchStream(ABC):
    """Training batches by number, without an end, and the ways in which they are read."""

    @abstractmethod
    def batch(self, k: int, rows: range | None = None) -> Batch:
        """Batch k, or those of its rows that a process reads."""

    def pipeline(self, rows: range | None = None) -> grain.MapDataset[Batch]:
        """The same as a grain dataset whose element k is batch k: whole batches, since grain's cost is per element."""
        import grain  # brings jax with it: not for those who only list or check

        return grain.MapDataset.range(sys.maxsize).map(functools.partial(self.batch, rows=rows))

    def iterate(
        self,
        start: int,
        rows: range,
        prefetch: int,
        place: Callable[[Batch], T],
        group: int = 1,
        stop: int | None = None,
    ) -> Prefetch[T]:
        """Batches from number `start` on, made and placed in the background. Close it, or use it in a `with`.

        Args:
          start: the first batch: the position, which is all that a checkpoint needs to keep.
          rows: the rows of each batch that this process reads.
          prefetch: items made ahead; 0 makes them when asked, in the caller's thread.
          place: what is done with each item in the background, such as sending it to the devices.
          group: batches stacked on a new leading axis to one item.
          stop: the batch before which to end (None: never); the last item may hold fewer than `group`.
        """
        end = sys.maxsize if stop is None else stop
        batches = self.pipeline(rows)

        def make(k: int) -> T:
            if group == 1:
                return place(batches[k])
            parts = [batches[i] for i in range(k, min(k + group, end))]
            return place({name: np.stack([part[name] for part in parts]) for name in parts[0]})

        return Prefetch(make, range(start, end, group), prefetch)


class TrainBatches(BatchStream):
    """The training split as an endless sequence of batches, in another order each epoch (but see `features.lanes`).

    Batch k holds places k·B to (k+1)·B of the sequence of all epochs' rows, also across an epoch's edge.
    Nothing is remembered between calls: batch 10**6 costs what batch 0 costs.
    """

    def __init__(self, rows: Rows, facts: Mapping[str, Any]) -> None:
        self._gather = rows.gather
        self._facts = facts
        self.notes = rows.notes
        self._size: int = facts["global_batch_size"]
        self._rows = rows
        self._order = _order(rows, facts["seed"], self._size)
        self.rows_per_epoch = len(rows)
        self.targets_per_epoch = rows.targets
        self.tokens_per_step = self._size * int(facts["seq_len"])

    def rows_of(self, k: int) -> np.ndarray:
        """The rows of the training split that batch k holds, (B,) int64."""
        return self._order[range(k * self._size, (k + 1) * self._size)]

    def realised(self, steps: int) -> dict[str, int]:
        """Rows that each part of a mixture gives to so many steps; empty without a mixture."""
        if not isinstance(self._rows, Mixed) or not isinstance(self._order, MixedOrder):
            return {}
        counts = self._order.counts(steps * self._size).tolist()
        return {f"{name} ({i})": count for i, (name, count) in enumerate(zip(self._rows.names, counts, strict=True))}

    @property
    def widths(self) -> tuple[int, ...]:
        """Widths of the batches where they differ; empty where all are alike."""
        return self._rows.widths if isinstance(self._rows, Bucketed) else ()

    def sample(self, width: int | None = None) -> Batch:
        """One row, as an evaluation has it or as wide as a batch of that width: to ask for shapes."""
        if isinstance(self._rows, Bucketed):
            return self._rows.sample(width or sys.maxsize)
        return self._gather(np.zeros(1, np.int64))

    def batch(self, k: int, rows: range | None = None) -> Batch:
        """Batch k, or those of its rows that a process reads: freshly made arrays (len(rows), T)."""
        wanted = slice(None) if rows is None else slice(rows.start, rows.stop, rows.step)
        places = np.arange(k * self._size, (k + 1) * self._size)
        return self._gather(self.rows_of(k)[wanted], places[wanted])

    def fingerprint(self) -> dict[str, Any]:
        """JSON-able facts on which the contents of every batch depend; see `compare_fingerprints`."""
        return {
            **self._facts,
            "rows": self.rows_per_epoch,
            "targets": self.targets_per_epoch,
            "notes": dict(self.notes),
            # Holds the algorithm to its word: another order under the same seed is another pipeline.
            "order": digest([self.rows_of(k).tobytes() for k in (0, 10**6)]),
        }


class EvalBatches:
    """A split in its own order, as global batches; the last is filled up with rows of weight 0."""

    def __init__(self, rows: Rows, facts: Mapping[str, Any], unknown: int | None) -> None:
        self._rows = rows
        self._size: int = facts["global_batch_size"]
        self._unknown = unknown
        self.targets = rows.targets

    def __len__(self) -> int:
        return -(-len(self._rows) // self._size)

    def batch(self, i: int, rows: range | None = None) -> Batch:
        """Batch i, or some of its rows: arrays (len(rows), T)."""
        if not 0 <= i < len(self):
            raise IndexError(f"batch {i} of {len(self)}")
        first = i * self._size
        wanted = np.arange(first, first + self._size)
        wanted = wanted if rows is None else wanted[rows.start : rows.stop : rows.step]
        there = self._rows.gather(wanted[wanted < len(self._rows)])
        missing = len(wanted) - len(there["tokens"])
        return {name: _filled(values, missing) for name, values in there.items()} if missing else there

    @property
    def notes(self) -> Mapping[str, float]:
        """What happened on the way to the rows; see `features.Rows`."""
        return self._rows.notes

    @property
    def unknown(self) -> int:
        """Targets that the tokenizer does not know (its id for the unknown); 0 for tokenizers that know everything."""
        if self._unknown is None:
            return 0
        ids = self._rows.ids
        parts = (ids[start : start + _TOGETHER] for start in range(0, len(ids), _TOGETHER))
        return sum(int(np.count_nonzero(part == self._unknown)) for part in parts)


def _order(rows: Rows, seed: int, batch: int) -> Order | InOrder | MixedOrder | BucketOrder:
    if isinstance(rows, Mixed):
        return rows.order(seed, batch)
    if isinstance(rows, Lanes):
        return rows.order()
    return rows.order(seed) if isinstance(rows, Bucketed) else Order(len(rows), seed)


def _filled(values: np.ndarray, missing: int) -> np.ndarray:
    """With so many rows of zeros behind it."""
    return np.pad(values, [(0, missing)] + [(0, 0)] * (values.ndim - 1))
