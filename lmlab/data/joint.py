"""Several datasets opened side by side, each for a loss of its own: a batch holds rows of all of them."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from lmlab.batches import of_task
from lmlab.contracts import Tokenizer
from lmlab.data.features import Batch
from lmlab.data.loader import BatchStream, Data, EvalBatches, TrainBatches
from lmlab.errors import ConfigError


class JointData:
    """What `Data` is to one dataset, for several; the arrays of a batch go by `batches.of_task`.

    Labels, tags and whatever else a loss is told of its data are those of `tasks[i]`.

    Args:
      name: of the whole.
      tasks: the datasets, with one tokenizer.

    Raises:
      ConfigError: their ids do not mean the same.
    """

    labels: tuple[str, ...] = ()
    tags: tuple[str, ...] = ()
    nats: Callable[[np.ndarray], np.ndarray] | None = None

    def __init__(self, name: str, tasks: Sequence[Data]) -> None:
        self.name, self.tasks = name, tuple(tasks)
        sizes = [task.vocab for task in tasks]
        if len(set(sizes)) > 1:
            each = ", ".join(f"{task.name} {size:,}" for task, size in zip(tasks, sizes, strict=True))
            raise ConfigError(f"{name}: one model reads all datasets, and their vocabularies differ ({each} ids).")

    @property
    def vocab(self) -> int:
        """Number of ids, V."""
        return self.tasks[0].vocab

    @property
    def tokenizer(self) -> Tokenizer | None:
        """The fitted tokenizer; None for datasets of ids."""
        return self.tasks[0].tokenizer

    @property
    def special_ids(self) -> Mapping[str, int]:
        """Ids that stand for no text, by role."""
        return self.tasks[0].special_ids

    @functools.cached_property
    def target_counts(self) -> np.ndarray:
        """How often each id is to be predicted in the training splits together, (V,) int64."""
        return np.sum([task.target_counts for task in self.tasks], axis=0)

    @functools.cached_property
    def train(self) -> JointTrainBatches:
        """The training splits; DataError if one does not fill one row."""
        return JointTrainBatches([task.name for task in self.tasks], [task.train for task in self.tasks])

    def split(self, name: str) -> JointEvalBatches:
        """A split of all of them, for evaluation; DataError if one does not have it."""
        return JointEvalBatches([task.name for task in self.tasks], [task.split(name) for task in self.tasks])


class JointTrainBatches(BatchStream):
    """Batch k holds batch k of each of the datasets.

    Args:
      names: of the datasets.
      tasks: their batches.
    """

    widths: tuple[int, ...] = ()

    def __init__(self, names: Sequence[str], tasks: Sequence[TrainBatches]) -> None:
        self._names, self._tasks = names, tasks
        self._size = len(tasks[0].rows_of(0))
        self.rows_per_epoch = max(task.rows_per_epoch for task in tasks)
        self.targets_per_epoch = sum(task.targets_per_epoch for task in tasks)
        self.tokens_per_step = sum(task.tokens_per_step for task in tasks)

    @property
    def notes(self) -> dict[str, float]:
        """What happened on the way to the rows of each."""
        return _notes(self._names, self._tasks)

    def rows_of(self, k: int) -> np.ndarray:
        """The rows that batch k holds, numbered through the training splits of all datasets."""
        before = np.cumsum([0, *(task.rows_per_epoch for task in self._tasks)])
        return np.concatenate([first + task.rows_of(k) for first, task in zip(before, self._tasks, strict=False)])

    def realised(self, steps: int) -> dict[str, int]:
        """Rows that each dataset gives to so many steps, and what its mixture does."""
        found: dict[str, int] = {}
        for i, (name, task) in enumerate(zip(self._names, self._tasks, strict=True)):
            found[f"{name} ({i})"] = steps * self._size
            found |= {f"{name} ({i}): {part}": rows for part, rows in task.realised(steps).items()}
        return found

    def sample(self, width: int | None = None) -> Batch:
        """One row of each: to ask for shapes."""
        return _joined([task.sample() for task in self._tasks])

    def batch(self, k: int, rows: range | None = None) -> Batch:
        """Batch k, or those of the rows of each dataset that a process reads."""
        return _joined([task.batch(k, rows) for task in self._tasks])

    def fingerprint(self) -> dict[str, Any]:
        """Those of the datasets, in their order."""
        return {f"task {i}": task.fingerprint() for i, task in enumerate(self._tasks)}


class JointEvalBatches:
    """A split of several datasets, side by side; those that are read to their end go on with rows of weight 0.

    Args:
      names: of the datasets.
      tasks: their batches.
    """

    def __init__(self, names: Sequence[str], tasks: Sequence[EvalBatches]) -> None:
        self._names, self._tasks = names, tasks
        self.targets = sum(task.targets for task in tasks)

    def __len__(self) -> int:
        return max(map(len, self._tasks))

    def batch(self, i: int, rows: range | None = None) -> Batch:
        """Batch i, or some of the rows of each dataset in it."""
        if not 0 <= i < len(self):
            raise IndexError(f"batch {i} of {len(self)}")
        return _joined([task.batch(i, rows) if i < len(task) else _nothing(task, rows) for task in self._tasks])

    @property
    def notes(self) -> dict[str, float]:
        """What happened on the way to the rows of each."""
        return _notes(self._names, self._tasks)

    @property
    def unknown(self) -> int:
        """Targets that the tokenizer does not know."""
        return sum(task.unknown for task in self._tasks)


def _joined(batches: Sequence[Batch]) -> Batch:
    return {of_task(i, name): values for i, batch in enumerate(batches) for name, values in batch.items()}


def _nothing(task: EvalBatches, rows: range | None) -> Batch:
    return {name: np.zeros_like(values) for name, values in task.batch(0, rows).items()}


def _notes(names: Sequence[str], tasks: Sequence[TrainBatches | EvalBatches]) -> dict[str, float]:
    found = [(f"{name} ({i})", task.notes) for i, (name, task) in enumerate(zip(names, tasks, strict=True))]
    return {f"{name}: {note}": value for name, notes in found for note, value in notes.items()}
