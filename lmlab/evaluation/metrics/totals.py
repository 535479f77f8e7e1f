"""What all metrics share: their protocol, exact means, the rows that count, and the libraries that some need."""

from __future__ import annotations

import importlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from types import ModuleType
from typing import Any, Protocol, Self

import numpy as np

from lmlab.errors import ConfigError


class Totals(Protocol):
    """Sums from which a metric is computed; each has an `add` of its own for what it compares."""

    def merge(self, other: Self) -> None:
        """Adds what another process, or another part of the data, has counted in the same way."""
        ...

    def result(self) -> dict[str, float]:
        """The numbers, by names that tell their protocol; empty where nothing was counted."""
        ...


@dataclass
class Mean:
    """The mean of numbers, without any rounding before the end: in whatever order they come, it is the same float.

    A float is a fraction whose denominator is a power of two, so that the exact sum stays small.
    """

    total: Fraction = field(default_factory=Fraction)
    count: int = 0

    def add(self, value: float) -> None:
        """Counts one number."""
        self.total += Fraction(value)
        self.count += 1

    def add_all(self, values: Iterable[float]) -> None:
        """Counts many numbers, as `add` does one by one, but quicker: over one common power of two."""
        ratios = [value.as_integer_ratio() for value in values]
        if ratios:
            whole = max(denominator for _, denominator in ratios)
            self.total += Fraction(sum(number * (whole // denominator) for number, denominator in ratios), whole)
            self.count += len(ratios)

    def merge(self, other: Mean) -> None:
        """Counts what another has counted."""
        self.total += other.total
        self.count += other.count

    def named(self, name: str, scale: float = 1) -> dict[str, float]:
        """The mean times `scale` under a name; empty where nothing was counted."""
        return {name: float(self.total / self.count * Fraction(scale))} if self.count else {}


def ratio(part: float, whole: float) -> float:
    """`part / whole`; 0 where there is no whole, as scikit-learn and seqeval have it (`zero_division=0`)."""
    return part / whole if whole else 0.0


def counted(weights: Any, *columns: Sequence[Any]) -> list[tuple[Any, ...]]:
    """The rows of parallel columns that count: those of a weight above 0, or all of them without weights.

    Raises:
      ValueError: the columns (or the weights) are not equally long.
    """
    rows = list(zip(*columns, strict=True))
    if weights is None:
        return rows
    return [row for row, weight in zip(rows, np.asarray(weights).tolist(), strict=True) if weight > 0]


def library(module: str, metric: str) -> ModuleType:
    """A module of the extra `metrics`.

    Raises:
      ConfigError: it is not installed; says how to install it.
    """
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name is None or not module.startswith(error.name):
            raise
        raise ConfigError(f"the metric {metric} needs {error.name}: pip install 'lmlab[metrics]'") from None
