"""Texts of any number and length as batches of one shape, which one program reads."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from jaxtyping import Int

ROWS = 16
"""Texts that are read together, B."""


def text_batches(
    rows: Sequence[Int[np.ndarray, " n"]],
) -> Iterator[tuple[Int[np.ndarray, "B T"], Int[np.ndarray, "B T"], int]]:
    """Ids with zeros behind, 1 where there is one, and how many of the B rows are texts; T is the longest text's."""
    longest = max(map(len, rows))
    for first in range(0, len(rows), ROWS):
        some = rows[first : first + ROWS]
        ids, there = np.zeros((2, ROWS, longest), np.int32)
        for at, row in enumerate(some):
            ids[at, : len(row)], there[at, : len(row)] = row, 1
        yield ids, there, len(some)
