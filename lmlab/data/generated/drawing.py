"""What generated datasets share: splits of which any example is drawn when it is asked for."""

from __future__ import annotations

import dataclasses
import functools
import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, TypeVar, overload

import numpy as np

from lmlab.data.fingerprints import digest
from lmlab.errors import DataError
from lmlab.ranges import Count, Seed

ENDLESS = 1 << 40
"""The length of a training split that no run reaches the end of."""

SPLITS = ("train", "valid", "test")
REMEMBERED = 1 << 20
LOOKED_AT = 8  # examples of each split in a fingerprint

Example = TypeVar("Example")


class Generated(Sequence[Example]):
    """A sequence whose items are made when they are asked for; so are those of its slices.

    Args:
      make: item i, a pure function of i.
      places: which i, in order; `range(n)` for all n items.
    """

    def __init__(self, make: Callable[[int], Example], places: range) -> None:
        self._make = make
        self._places = places

    def __len__(self) -> int:
        return len(self._places)

    @overload
    def __getitem__(self, index: int) -> Example: ...
    @overload
    def __getitem__(self, index: slice) -> Generated[Example]: ...
    def __getitem__(self, index: int | slice) -> Example | Generated[Example]:
        if isinstance(index, slice):
            return Generated(self._make, self._places[index])
        return self._make(self._places[index])

    def __iter__(self) -> Iterator[Example]:
        return map(self._make, self._places)


@dataclass(frozen=True, kw_only=True)
class Drawn(ABC):
    """A dataset whose examples are drawn independently of each other: a subclass says how one of them is drawn.

    Args:
      seed: of the drawing.
      train_examples: number of training examples; a smaller number is the beginning of a greater one.
      valid_examples: number of validation examples.
      test_examples: number of test examples.
    """

    remembers: ClassVar[bool] = False
    """Whether splits of up to a million examples keep what is drawn: where drawing takes longer than an epoch may."""

    seed: Seed = 0
    train_examples: Count = ENDLESS
    valid_examples: Count = 1000
    test_examples: Count = 1000

    @abstractmethod
    def draw(self, random: np.random.Generator, source: str) -> Any:
        """One example, from fresh random numbers; `source` is its name for messages."""

    def split(self, name: str) -> Generated[Any]:
        """The examples of `train`, `valid` or `test`."""
        check_split(self, name)
        return self._splits[name]

    def fingerprint(self) -> dict[str, Any]:
        """The parameters, and the sha256 of the first examples of every split."""
        return fingerprint(self, self._splits)

    @functools.cached_property
    def _splits(self) -> dict[str, Generated[Any]]:
        sizes = {name: getattr(self, f"{name}_examples") for name in SPLITS}
        return {name: Generated(self._maker(name, size), range(size)) for name, size in sizes.items()}

    def _maker(self, split: str, size: int) -> Callable[[int], Any]:
        make = functools.partial(self._at, split)
        return functools.cache(make) if self.remembers and size <= REMEMBERED else make

    def _at(self, split: str, i: int) -> Any:
        return self.draw(random_at(self.seed, split, i), f"{name_of(self)}/{split}/{i}")


def perfect_recall(symbols: int) -> dict[str, float]:
    """What is known of a task whose answer stands in the row, one of so many symbols, each as likely."""
    return {
        "optimum/accuracy": 1.0,
        "optimum/nats_per_token": 0.0,
        "chance/accuracy": 1 / symbols,
        "chance/nats_per_token": math.log(symbols),
    }


def name_of(dataset: Any) -> str:
    """The name under which the dataset's class is registered, which is that of its module."""
    return str(type(dataset).__module__.rpartition(".")[2])


def check_split(dataset: Any, name: str) -> None:
    """DataError unless `name` is a split."""
    if name not in SPLITS:
        raise DataError(f"{name_of(dataset)}: no split '{name}'; there are train, valid and test.")


def random_at(seed: int, split: str, i: int) -> np.random.Generator:
    """The random numbers of example i of a split.

    Splits count from 1: `default_rng(seed)`, from which datasets draw their parameters, is that of [seed, 0, 0].
    """
    return np.random.Generator(np.random.PCG64([seed, 1 + SPLITS.index(split), i]))


def fingerprint(dataset: Any, splits: Mapping[str, Sequence[Any]]) -> dict[str, Any]:
    """The parameters of a dataset, and the length and the sha256 of the first examples of its splits."""
    parameters = {field.name: getattr(dataset, field.name) for field in dataclasses.fields(dataset)}
    return {"parameters": parameters, **{name: _facts(examples) for name, examples in splits.items()}}


def _facts(examples: Sequence[Any]) -> dict[str, Any]:
    parts = (part for example in examples[:LOOKED_AT] for part in _contents(example))
    return {"examples": len(examples), "first": digest(parts)}


def _contents(example: Any) -> Iterator[bytes]:
    """Every member of an example but its source."""
    for field in dataclasses.fields(example):
        value = getattr(example, field.name)
        if field.name != "source":
            yield value.tobytes() if isinstance(value, np.ndarray) else repr(value).encode()
