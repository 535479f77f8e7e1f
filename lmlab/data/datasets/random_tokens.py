"""Ids drawn at random: a corpus whose entropy is known exactly."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from lmlab.contracts import Tokens
from lmlab.data.fingerprints import digest
from lmlab.errors import ConfigError, DataError
from lmlab.examples import last_ids
from lmlab.ranges import Count, NonNegative, Seed
from lmlab.registry import datasets


@datasets.register("random_tokens")
@dataclass(frozen=True)
class RandomTokens:
    """Independent ids from a Zipf law, p(i) ∝ 1 / (i+1)^exponent; exponent 0 is uniform.

    Nothing can be learned but the ids' frequencies: no model's expected loss is below `entropy`.

    Args:
      vocab: number of ids, V, those of `specials` included.
      tokens: length of the training stream.
      valid_tokens: length of the validation and the test stream.
      exponent: of the Zipf law.
      seed: of the drawing; every split draws its own numbers.
      specials: roles of the last ids, such as `mask`, which never occur.
    """

    example: ClassVar[type] = Tokens
    TINY: ClassVar[str] = "random_tokens.vocab = 13\nrandom_tokens.tokens = 2003\nrandom_tokens.valid_tokens = 211"

    vocab: Count = 256
    tokens: Count = 100_000
    valid_tokens: Count = 10_000
    exponent: NonNegative = 0.0
    seed: Seed = 0
    specials: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.vocab <= len(self.specials):
            raise ConfigError(f"random_tokens.vocab = {self.vocab} has no ids beside {len(self.specials)} specials.")

    @property
    def special_ids(self) -> dict[str, int]:
        """The last ids, by role."""
        return last_ids(self.vocab, self.specials)

    @property
    def probabilities(self) -> np.ndarray:
        """p(i) of the ids that occur, float64."""
        weights = np.arange(1, self.vocab - len(self.specials) + 1, dtype=np.float64) ** -self.exponent
        return weights / weights.sum()

    @property
    def entropy(self) -> float:
        """Nats per token: log V for the uniform law without specials."""
        return float(-(self.probabilities * np.log(self.probabilities)).sum())

    def known(self) -> dict[str, float]:
        """The entropy, which is the best expected loss, and the best expected accuracy: always the likeliest id."""
        return {
            "entropy/nats_per_token": self.entropy,
            "optimum/accuracy": float(self.probabilities.max()),
            "chance/nats_per_token": float(np.log(len(self.probabilities))),
        }

    def split(self, name: str) -> tuple[Tokens, ...]:
        """The ids of a split, as one stream of the smallest sufficient type."""
        if name not in ("train", "valid", "test"):
            raise DataError(f"random_tokens: no split '{name}'; there are train, valid and test.")
        return (Tokens(self._drawn[name], f"random_tokens/{name}"),)

    def fingerprint(self) -> dict[str, Any]:
        """Length and sha256 of every split."""
        return {
            "vocab": self.vocab,
            **{split: {"ids": len(ids), "sha256": digest([ids.tobytes()])} for split, ids in self._drawn.items()},
        }

    @functools.cached_property
    def _drawn(self) -> dict[str, np.ndarray]:
        lengths = {"train": self.tokens, "valid": self.valid_tokens, "test": self.valid_tokens}
        return {split: self._draw(i, length) for i, (split, length) in enumerate(lengths.items())}

    def _draw(self, stream: int, length: int) -> np.ndarray:
        uniform = np.random.Generator(np.random.PCG64([self.seed, stream])).random(length)
        cumulative = np.cumsum(self.probabilities)[:-1]
        return np.searchsorted(cumulative, uniform, side="right").astype(np.min_scalar_type(self.vocab - 1))
