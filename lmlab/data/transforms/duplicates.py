"""Examples that occur again: exact copies, and near ones found by MinHash (Broder 1997) with banding."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import blake2b
from typing import Any

import numpy as np

from lmlab.examples import texts_of
from lmlab.ranges import Count, Fraction, Seed
from lmlab.registry import transforms


@transforms.register("drop_duplicates")
@dataclass(frozen=True)
class DropDuplicates:
    """Of the examples of a split that have the same texts, keeps the first; labels and tags are not compared."""

    def __call__(self, example: Any, rng: np.random.Generator) -> Any | None:
        """The example as it is."""
        return example

    def keep(self, examples: Sequence[Any]) -> list[int]:
        """The places of those that stay, in order."""
        first: dict[tuple[str, ...], int] = {}
        for place, example in enumerate(examples):
            first.setdefault(tuple(texts_of(example)), place)
        return list(first.values())


@transforms.register("drop_near_duplicates")
@dataclass(frozen=True)
class DropNearDuplicates:
    """Drops an example of a split whose text is nearly that of an earlier one that stays.

    Near is a Jaccard index of at least `threshold` between the sets of word n-grams (shingles) of the two, in lower
    case; a text of fewer words is one shingle. MinHash with banding finds pairs to compare, and the index is
    then computed from the sets: nothing is dropped by mistake, and a pair of index s is missed with probability
    (1 - s^rows)^bands, for s = 0.8 and the defaults 0.0004, for s = 0.5 (the bands' own threshold) 0.5.

    Args:
      threshold: least Jaccard index of what is dropped.
      words: of a shingle, n.
      bands: of hashes; texts that agree in all hashes of one are compared.
      rows: hashes in a band.
      seed: of the hash functions.
    """

    threshold: Fraction = 0.8
    words: Count = 5
    bands: Count = 20
    rows: Count = 5
    seed: Seed = 0

    def __call__(self, example: Any, rng: np.random.Generator) -> Any | None:
        """The example as it is."""
        return example

    def keep(self, examples: Sequence[Any]) -> list[int]:
        """The places of those that stay, in order."""
        multiply, add = self._functions()
        kept: dict[int, np.ndarray] = {}
        buckets: defaultdict[bytes, list[int]] = defaultdict(list)
        for place, example in enumerate(examples):
            found = shingles("\n".join(texts_of(example)), self.words)
            bands = self._bands(found, multiply, add)
            others = {other for band in bands for other in buckets.get(band, ())}
            if any(jaccard(found, kept[other]) >= self.threshold for other in sorted(others)):
                continue
            kept[place] = found
            for band in bands:
                buckets[band].append(place)
        return list(kept)

    def _functions(self) -> tuple[np.ndarray, np.ndarray]:
        """x → (a x + b) mod 2^64 of every hash, a odd; the higher half counts."""
        rng = np.random.Generator(np.random.PCG64(self.seed))
        drawn = rng.integers(0, 2**64, (2, self.bands * self.rows, 1), np.uint64)
        return drawn[0] | np.uint64(1), drawn[1]

    def _bands(self, found: np.ndarray, multiply: np.ndarray, add: np.ndarray) -> list[bytes]:
        """The least hashes of a set, band by band, each with the band's number."""
        least = ((found[None, :] * multiply + add) >> np.uint64(32)).min(axis=1).reshape(self.bands, self.rows)
        return [number.to_bytes(4, "little") + band.tobytes() for number, band in enumerate(least)]


def shingles(text: str, n: int) -> np.ndarray:
    """The set of n-grams of a text's words in lower case, as sorted 64-bit hashes; never empty."""
    words = text.lower().split()
    grams = {" ".join(words[start : start + n]) for start in range(max(len(words) - n + 1, 1))}
    hashes = (int.from_bytes(blake2b(gram.encode(), digest_size=8).digest(), "little") for gram in grams)
    return np.array(sorted(hashes), np.uint64)


def jaccard(one: np.ndarray, other: np.ndarray) -> float:
    """Share of what is in either set that is in both (sorted arrays without repetitions)."""
    both = len(np.intersect1d(one, other, assume_unique=True))
    return both / (len(one) + len(other) - both)
