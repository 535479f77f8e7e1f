"""Sums over the batches of a split, or what there is for each of its rows: the loop that evaluators share."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import cached_property
from typing import TYPE_CHECKING, Any

import jax
import numpy as np

from lmlab.errors import ConfigError
from lmlab.training.carrying import CARRY

if TYPE_CHECKING:
    from jaxtyping import Array

    from lmlab.contracts import Loss
    from lmlab.nn.functional import Params
    from lmlab.training.program import Compiled, Program
    from lmlab.training.state import State

IN_FLIGHT = 16
"""Batches computed before their sums are fetched: the device never waits for the host, nor piles up batches."""

Sums = Callable[["Params", "Mapping[str, Array]"], Any]
Carrying = Callable[["Params", "Mapping[str, Array]", Any], tuple[Any, Any]]


class SplitSums:
    """The sums of a function over a split, or over some of its batches, at a state.

    Args:
      program: of the run.
      split: which part of the data.
      batches: how many global batches, evenly over the split; None is all of them.
      function: `(params, batch) -> tree of sums` over the rows that it is given.

    Raises:
      ConfigError: `batches` is below 1.
      DataError: the dataset has no such split, or there is nothing to predict in it: better missed now than after
        hours of training.
    """

    def __init__(self, program: Program, split: str, batches: int | None, function: Sums) -> None:
        if batches is not None and batches < 1:
            raise ConfigError(f"batches = {batches}: it must be at least 1, or None for all.")
        self.program, self.split, self.batches = program, split, batches
        self._function = function
        program.data.split(split)

    @cached_property
    def compiled(self) -> Compiled:
        """The program for one batch."""
        return self.program.compile_evaluation(self._function, self.program.abstract_batch)

    def __call__(self, state: State) -> Any:
        """The tree of sums, float64 or int64, at the averaged parameters of the state, where it has such."""
        summed: Any = None
        for part in self.parts(state):
            part = jax.tree.map(_wide, part)
            summed = part if summed is None else jax.tree.map(np.add, summed, part)
        return summed

    def parts(self, state: State) -> Iterator[Any]:
        """What the compiled function gives for each batch, on the host, in the order of the split."""
        data, partitioner = self.program.data.split(self.split), self.program.partitioner
        rows = partitioner.rows(self.program.experiment.global_batch_size)
        count = len(data) if self.batches is None else min(len(data), self.batches)
        waiting: list[Any] = []
        for done, index in enumerate(self._chosen(len(data), count), start=1):
            waiting.append(self._sums(state, partitioner.place(data.batch(index, rows))))
            if len(waiting) == IN_FLIGHT or done == count:
                yield from jax.device_get(waiting)
                waiting = []

    def _chosen(self, there: int, count: int) -> Iterable[int]:
        """Evenly over the split: its first batches are its first documents, and may be of one kind."""
        return (i * there // count for i in range(count))

    def _sums(self, state: State, batch: Mapping[str, Array]) -> Any:
        return self.compiled(state, batch)


class CarriedSums(SplitSums):
    """The sums over a split, or over the first of its batches, each of which goes on where the one before it ended.

    The split is read as `features.lanes` has it, in as many lanes as the global batch has rows, each from its own
    beginning: every token is predicted once, and all but those of the first windows after all of its lane before it.

    Args:
      program, split, batches: as in `SplitSums`.
      function: `(params, batch, carry) -> (tree of sums, carry)`.
      loss: whose rows carry it.
    """

    def __init__(self, program: Program, split: str, batches: int | None, function: Carrying, loss: Loss) -> None:
        self._carrying, self._shapes = function, program.carry_of(loss)
        super().__init__(program, split, batches, lambda params, batch: function(params, batch, None)[0])

    @cached_property
    def compiled(self) -> Compiled:
        """The program for one batch."""
        return self.program.compile_carrying(self._carrying, self.program.abstract_batch, self._shapes)

    def parts(self, state: State) -> Iterator[Any]:
        """As in `SplitSums`; all rows begin anew."""
        self._carry = self._nothing()
        return super().parts(state)

    def _chosen(self, there: int, count: int) -> Iterable[int]:
        """The first ones, which are evenly over the split: each holds a part of every lane."""
        return range(count)

    def _sums(self, state: State, batch: Mapping[str, Array]) -> Any:
        self._carry, sums = self.compiled(state, {**batch, CARRY: self._carry})
        return sums

    def _nothing(self) -> Any:
        """Zeros: the rows of the first batch are fresh, and read nothing of it."""
        leaves, tree = jax.tree.flatten(self._shapes)
        rows = len(self.program.partitioner.rows(self.program.experiment.global_batch_size))
        zeros = {str(i): np.zeros((rows, *leaf.shape[1:]), leaf.dtype) for i, leaf in enumerate(leaves)}
        placed = self.program.partitioner.place(zeros)
        return jax.tree.unflatten(tree, [placed[name] for name in zeros])


def sums_over(program: Program, split: str, batches: int | None, function: Carrying, loss: Loss) -> SplitSums:
    """The sums of `(params, batch, carry) -> (tree of sums, carry)`, where the loss carries nothing with None."""
    if program.carry_of(loss) is not None:
        return CarriedSums(program, split, batches, function, loss)
    return SplitSums(program, split, batches, lambda params, batch: function(params, batch, None)[0])


class SplitRows(SplitSums):
    """What a function gives for each row of a split, or of some of its batches, at a state: see `parts`.

    Args:
      program, split, batches: as in `SplitSums`.
      function: `(params, batch) -> tree of arrays`, rows first. It returns what tells rows that fill up the last batch
        (of weight 0) from others, and whatever of the batch is needed: each process reads a part of it only.
    """

    @cached_property
    def compiled(self) -> Compiled:
        """The program for one batch."""
        return self.program.compile_rows(self._function, self.program.abstract_batch)


def _wide(x: np.ndarray) -> np.ndarray:
    return np.asarray(x, np.int64 if np.issubdtype(x.dtype, np.integer) else np.float64)
