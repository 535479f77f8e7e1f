"""The order of training: which row stands at place i, for any i, in constant time and without a table.

grain's own random-access shuffle was measured and not taken: with its fixed 4 rounds, neighbouring places of
a million rows land at correlated rows (0.41), and its blocks of 2^16 make one index of a small corpus cost 0.2 ms.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np

_ROUNDS = 8
_BLOCK = 2048  # places worked out together: fewer cost numpy as much


class Order:
    """Every row once per epoch, in another order each epoch: a pure function of (seed, place).

    Args:
      rows: number of rows n.
      seed: any integer.
    """

    def __init__(self, rows: int, seed: int) -> None:
        self.rows = rows
        self.seed = seed
        self._last = (-1, -1, np.empty(0, np.int64))  # epoch, block and rows of what was asked for last

    def __getitem__(self, places: range) -> np.ndarray:
        """The rows at `places`, int64; places go on over the edges of epochs."""
        parts = [np.empty(0, np.int64)]
        for epoch, block, within in self._blocks(places.start, places.stop):
            parts.append(self._rows(epoch, block)[within])
        return np.concatenate(parts)[:: places.step]

    def _blocks(self, start: int, stop: int) -> Iterator[tuple[int, int, slice]]:
        """The places as parts of blocks: an epoch's places are cut into blocks of `_BLOCK`, its last may be smaller."""
        while start < stop:
            epoch, place = divmod(start, self.rows)
            block, first = divmod(place, _BLOCK)
            count = min(stop - start, self.rows - place, _BLOCK - first)
            yield epoch, block, slice(first, first + count)
            start += count

    def _rows(self, epoch: int, block: int) -> np.ndarray:
        known_epoch, known_block, rows = self._last  # read and replaced in one piece: there may be several threads
        if (known_epoch, known_block) == (epoch, block):
            return rows
        words = [abs(self.seed), int(self.seed < 0), epoch]
        keys = np.random.SeedSequence(words).generate_state(_ROUNDS, np.uint64)
        places = np.arange(block * _BLOCK, min((block + 1) * _BLOCK, self.rows), dtype=np.uint64)
        rows = permute(places, self.rows, keys).astype(np.int64)
        self._last = (epoch, block, rows)
        return rows


class InOrder:
    """Every row once per epoch, each epoch in the order of the rows.

    Args:
      rows: number of rows n.
    """

    def __init__(self, rows: int) -> None:
        self.rows = rows

    def __getitem__(self, places: range) -> np.ndarray:
        """The rows at `places`, int64; places go on over the edges of epochs."""
        return np.arange(places.start, places.stop, places.step, dtype=np.int64) % self.rows


def permute(places: np.ndarray, size: int, keys: np.ndarray) -> np.ndarray:
    """A pseudo-random permutation of range(size), given by `keys`, at `places` (uint64).

    An alternating Feistel network over Z_a × Z_b with a·b barely above `size`; what lands outside is sent through
    again until it is inside, which keeps it a permutation (Black & Rogaway 2002, "Ciphers with arbitrary finite
    domains", sections 3 and 5).
    """
    a = math.isqrt(size - 1) + 1
    b = -(-size // a)
    found = _network(places, a, b, keys)
    while (outside := found >= size).any():
        found[outside] = _network(found[outside], a, b, keys)
    return found


def _network(places: np.ndarray, a: int, b: int, keys: np.ndarray) -> np.ndarray:
    left, right = np.divmod(places, np.uint64(b))
    for turn, key in enumerate(keys):
        if turn % 2:
            left = (left + _mix(right ^ key) % np.uint64(a)) % np.uint64(a)
        else:
            right = (right + _mix(left ^ key) % np.uint64(b)) % np.uint64(b)
    return left * np.uint64(b) + right


def _mix(x: np.ndarray) -> np.ndarray:
    """The finaliser of SplitMix64 (Steele, Lea & Flood 2014): every input bit reaches every output bit."""
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))
