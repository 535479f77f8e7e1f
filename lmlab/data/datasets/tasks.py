"""Several datasets side by side, each read by a loss of its own: multi-task learning."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from lmlab.contracts import Dataset
from lmlab.errors import ConfigError
from lmlab.registry import datasets


@datasets.register("tasks")
@dataclass(frozen=True)
class Tasks:
    """Datasets of which every step reads a batch each, for the losses of `weighted` in their order.

    A step reads `experiment.global_batch_size` rows of each of them; one that is used up begins anew, in another
    order, whatever the sizes of the others. They share the tokenizer, which is fitted on all of them. Rows of one
    corpus that stands here twice come in the same order, so that both losses see the same examples. (Datasets whose
    rows are to be mixed for one loss: `mixture`.)

    Example:
      experiment.dataset = @tasks
      tasks.datasets = [@r8, @brown]
      experiment.loss = @weighted
      weighted.losses = [@classification, @autoregressive]
      weighted.weights = [1.0, 0.3]

    Args:
      datasets: one for each of the losses.
    """

    TASKS: ClassVar[str] = "datasets"
    TINY: ClassVar[str] = """
    tasks.datasets = [@random_tokens, @token_file]
    random_tokens.vocab = 11
    random_tokens.tokens = 2003
    token_file.path = '{folder}/tokens.npy'
    token_file.vocab = 11
    experiment.loss = @weighted
    weighted.losses = [@autoregressive, @smoothed/autoregressive]
    weighted.weights = [0.7, 0.3]
    """

    datasets: tuple[Dataset, ...]

    def __post_init__(self) -> None:
        if not self.datasets:
            raise ConfigError("tasks.datasets is empty: give one dataset for each loss.")
        if any(isinstance(dataset, Tasks) for dataset in self.datasets):
            raise ConfigError("tasks.datasets: 'tasks' stands in itself. Name its datasets here, one for each loss.")

    @property
    def example(self) -> type:
        """The kind of example that all of them yield; `object` where they differ."""
        kinds = {dataset.example for dataset in self.datasets}
        return kinds.pop() if len(kinds) == 1 else object

    @property
    def vocab(self) -> int:
        """Number of ids, for datasets of ids; ConfigError where they differ."""
        sizes = {int(dataset.vocab) for dataset in self.datasets}  # type: ignore[attr-defined]
        if len(sizes) > 1:
            raise ConfigError(f"tasks: the datasets have vocabularies of {sorted(sizes)} ids: they must have one.")
        return sizes.pop()

    def split(self, name: str) -> Sequence[Any]:
        """The examples of all of them, one dataset after the other."""
        return tuple(itertools.chain.from_iterable(dataset.split(name) for dataset in self.datasets))

    def fingerprint(self) -> dict[str, Any]:
        """The fingerprints of the datasets."""
        return {"tasks": [dict(dataset.fingerprint()) for dataset in self.datasets]}
