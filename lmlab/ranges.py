"""The ranges of parameters' numbers, as part of their annotations: `layers: Count = 12`."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Annotated


@dataclass(frozen=True)
class Within:
    """The range of a parameter's numbers, as a note in its annotation: `Annotated[float, Within(0, below=1)]`.

    Asked when a configuration is resolved, where the number's file and line are known. What a population makes of it
    later (a tracer) is not asked.

    Args:
      at_least, at_most: the least and the greatest number of the range.
      above, below: what is just outside of it.
    """

    at_least: float | None = None
    at_most: float | None = None
    above: float | None = None
    below: float | None = None

    def __contains__(self, number: float) -> bool:
        return (
            math.isfinite(number)
            and (self.at_least is None or number >= self.at_least)
            and (self.at_most is None or number <= self.at_most)
            and (self.above is None or number > self.above)
            and (self.below is None or number < self.below)
        )

    def __str__(self) -> str:
        bounds = ((">=", self.at_least), (">", self.above), ("<=", self.at_most), ("<", self.below))
        return " and ".join(f"{sign} {bound}" for sign, bound in bounds if bound is not None)


Count = Annotated[int, Within(at_least=1)]
Natural = Annotated[int, Within(at_least=0)]
Seed = Annotated[int, Within(at_least=0, below=2**32)]
Positive = Annotated[float, Within(above=0)]
NonNegative = Annotated[float, Within(at_least=0)]
Fraction = Annotated[float, Within(at_least=0, at_most=1)]
ProperFraction = Annotated[float, Within(at_least=0, below=1)]
"""Ranges that parameters often have."""
