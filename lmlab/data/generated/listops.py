"""ListOps: nested operations on lists of digits, to be worked out to one digit."""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar

import numpy as np

from lmlab.contracts import LabelledText
from lmlab.data.corpus import split_of
from lmlab.data.generated.drawing import SPLITS, Generated, check_split, fingerprint, random_at
from lmlab.errors import ConfigError, DataError
from lmlab.ranges import Count, Seed, Within
from lmlab.registry import datasets

OPERATOR_SHARE = 0.25
ENOUGH = 20_000  # draws in vain from which on there is taken to be nothing to find
SAMPLED = 200  # expressions behind the estimates of `known`
_THIRD = 0.3333


def median(values: list[int]) -> int:
    """The middle one, or the mean of the two in the middle without its fraction."""
    ordered = sorted(values)
    return (ordered[(len(ordered) - 1) // 2] + ordered[len(ordered) // 2]) // 2


OPERATORS: tuple[tuple[str, Callable[[list[int]], int]], ...] = (
    ("[MIN", min),
    ("[MAX", max),
    ("[MED", median),
    ("[SM", lambda values: sum(values) % 10),
)


class _TooLong(Exception):
    """The expression will not be kept."""


@datasets.register("listops")
@dataclass(frozen=True, kw_only=True)
class ListOps:
    """Nested MIN, MAX, MED and SM of lists of digits (Nangia & Bowman 2018, arXiv:1804.06028; Tay et al. 2020, LRA).

    Yields `LabelledText`: `[MAX 2 9 [MIN 4 7 ] 0 ]` with label `9`; the symbols are separated by spaces. A node is an
    operator with probability 1/4 if it may be, else a uniform digit; operators are uniform, and so is the number of
    their arguments from 2 to `max_args`. MED is the median without its fraction, SM the sum modulo 10. The length of an
    expression is its number of symbols.

    LRA (arXiv:2011.04006), the defaults: lengths above 500 and below 2000, about 8 % of what is drawn. Expression i is
    a function of (seed, split, i); md5 of the text gives every split a third of all expressions, so that none is in
    two. Nangia & Bowman: `max_depth` 20, `max_args` 5, `min_length` 1, no bound on the length, `distinct`, 90,000 for
    training and 10,000 for testing, all drawn when the first is asked for; without `distinct`, three quarters would be
    single digits. An accuracy below about 18 % is that of the majority class. The files that were published with the
    latter paper have two more operators, FIRST and LAST.

    Args:
      seed: of the drawing.
      train_examples: number of training expressions.
      valid_examples: number of validation expressions.
      test_examples: number of test expressions.
      max_depth: depth of the tree; its root is at depth 1, and at this depth there are digits only.
      max_args: greatest number of arguments.
      min_length: shortest expression that is kept, in symbols.
      max_length: longest one.
      distinct: whether no expression comes twice, in any split.
    """

    example: ClassVar[type] = LabelledText
    labels: ClassVar[tuple[str, ...]] = tuple("0123456789")
    TINY: ClassVar[str] = """
    listops.max_depth = 5
    listops.max_args = 3
    listops.min_length = 5
    listops.max_length = 29
    listops.train_examples = 101
    listops.valid_examples = 17
    listops.test_examples = 19
    """

    seed: Seed = 0
    train_examples: Count = 96_000
    valid_examples: Count = 2000
    test_examples: Count = 2000
    max_depth: Annotated[int, Within(at_least=1, at_most=100)] = 10
    max_args: Annotated[int, Within(at_least=2)] = 10
    min_length: Count = 501
    max_length: Count = 1999
    distinct: bool = False

    def __post_init__(self) -> None:
        if self.min_length > self.max_length:
            raise ConfigError(f"listops: min_length = {self.min_length} is above max_length = {self.max_length}.")

    def split(self, name: str) -> Sequence[LabelledText]:
        """The expressions of `train`, `valid` or `test`; DataError if there are none of the lengths asked for."""
        check_split(self, name)
        make = self._distinct[name].__getitem__ if self.distinct else functools.partial(self._at, name)
        return Generated(make, range(getattr(self, f"{name}_examples")))

    def fingerprint(self) -> dict[str, Any]:
        """The parameters, and the length and first expressions of every split."""
        return fingerprint(self, {name: self.split(name) for name in SPLITS})

    def known(self) -> dict[str, float]:
        """What can be reached; the share of the most frequent label and the mean length, estimated, with errors."""
        uniform = _uniform(np.random.default_rng([self.seed, 1 + len(SPLITS)]))
        drawn = [self._fitting(uniform) for _ in range(SAMPLED)]
        labels = np.bincount([int(label) for _, label in drawn], minlength=10) / SAMPLED
        lengths = np.array([len(text.split()) for text, _ in drawn])
        majority = float(labels.max())
        return {
            "optimum/accuracy": 1.0,
            "optimum/nats_per_example": 0.0,
            "estimate/majority_accuracy": majority,
            "estimate/majority_accuracy_standard_error": math.sqrt(majority * (1 - majority) / SAMPLED),
            "estimate/length_symbols": float(lengths.mean()),
            "estimate/length_symbols_standard_error": float(lengths.std(ddof=1) / math.sqrt(SAMPLED)),
        }

    def _at(self, split: str, i: int) -> LabelledText:
        uniform = _uniform(random_at(self.seed, split, i))
        while True:
            text, label = self._fitting(uniform)
            if split_of(text, _THIRD, _THIRD) == split:
                return LabelledText(text, label, source=f"listops/{split}/{i}")

    @functools.cached_property
    def _distinct(self) -> dict[str, list[LabelledText]]:
        """All splits: distinct expressions in the order in which they were drawn, shuffled, dealt out."""
        random = np.random.default_rng(self.seed)
        uniform, sizes = _uniform(random), [getattr(self, f"{name}_examples") for name in SPLITS]
        found: dict[str, str] = {}
        in_vain = 0
        while len(found) < sum(sizes):
            text, label = self._fitting(uniform)
            in_vain = in_vain + 1 if text in found else 0
            if in_vain > ENOUGH:
                raise DataError(f"listops: there seem to be only {len(found)} distinct expressions. Ask for fewer.")
            found[text] = label
        pairs = list(found.items())  # the first are the likely ones: without shuffling, these would be for training
        shuffled = (pairs[i] for i in random.permutation(len(pairs)).tolist())
        return {
            name: [
                LabelledText(text, label, source=f"listops/{name}/{i}")
                for i, (text, label) in enumerate(itertools.islice(shuffled, size))
            ]
            for name, size in zip(SPLITS, sizes, strict=True)
        }

    def _fitting(self, uniform: Iterator[float]) -> tuple[str, str]:
        """The next expression that is neither too short nor too long, with its value."""
        for _ in range(ENOUGH):
            symbols: list[str] = []
            try:
                value = self._grow(uniform, 1, symbols)
            except _TooLong:
                continue
            if self.min_length <= len(symbols) <= self.max_length:
                return " ".join(symbols), str(value)
        raise DataError(
            f"listops: of {ENOUGH} expressions none had {self.min_length} to {self.max_length} symbols. "
            "Change listops.min_length, max_length, max_depth or max_args."
        )

    def _grow(self, uniform: Iterator[float], depth: int, symbols: list[str]) -> int:
        """Puts the symbols of a random node at the end of `symbols`, and returns its value."""
        u = next(uniform)
        if u >= OPERATOR_SHARE or depth >= self.max_depth:
            digit = int(next(uniform) * 10)
            symbols.append(str(digit))
            return digit
        if len(symbols) > self.max_length:
            raise _TooLong
        name, operate = OPERATORS[int(u / OPERATOR_SHARE * len(OPERATORS))]
        symbols.append(name)
        args = 2 + int(next(uniform) * (self.max_args - 1))
        values = [self._grow(uniform, depth + 1, symbols) for _ in range(args)]
        symbols.append("]")
        return operate(values)


def _uniform(random: np.random.Generator) -> Iterator[float]:
    """Numbers in [0, 1), without end."""
    while True:
        yield from random.random(1024).tolist()
