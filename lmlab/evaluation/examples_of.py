"""The examples that a measurement reads as they are: a split of the run's own dataset, or of another one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from lmlab.errors import ConfigError
from lmlab.registry import name_of

if TYPE_CHECKING:
    from lmlab.contracts import Dataset
    from lmlab.training.program import Program


def examples_of(
    program: Program, dataset: Dataset | None, split: str, count: int | None, kind: type, evaluator: str
) -> list[Any]:
    """The examples of a split, or `count` of them, evenly over it.

    Args:
      program: of the run.
      dataset: where they come from; None: from the run's own dataset.
      split: which part of it.
      count: how many; None is all of them.
      kind: what they must be.
      evaluator: who asks, for the message.

    Raises:
      ConfigError: the dataset yields something else.
      DataError: it has no such split.
    """
    found: Any = program.one_dataset.dataset if dataset is None else dataset
    if found.example is not kind:
        raise ConfigError(
            f"the evaluator '{evaluator}' reads {kind.__name__}, and the dataset '{name_of(found)}' yields "
            f"{found.example.__name__}. Give it another one: --set '{evaluator}.dataset = @...'   (lmlab list datasets)"
        )
    return evenly(found.split(split), count)


def evenly(examples: Sequence[Any], count: int | None) -> list[Any]:
    """So many of them, evenly over all: the first ones may be of one kind."""
    there = len(examples)
    chosen = there if count is None else min(count, there)
    return [examples[i * there // chosen] for i in range(chosen)]
