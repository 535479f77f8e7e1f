"""Dyck languages: well-nested brackets of several kinds, up to a depth."""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass
from typing import Annotated, ClassVar

import numpy as np

from lmlab.contracts import TokenSequence
from lmlab.data.generated.drawing import Drawn
from lmlab.ranges import Count, Within
from lmlab.registry import datasets

Probability = Annotated[float, Within(above=0, below=1)]


@datasets.register("dyck")
@dataclass(frozen=True, kw_only=True)
class Dyck(Drawn):
    """Dyck-(k, m): words of k kinds of brackets, nested at most m deep (Hewitt et al. 2020, arXiv:2010.07515).

    A row is a stream of such words, each followed by the end id, cut after `length` tokens. Outside of all brackets a
    word ends with probability `end`, else a bracket opens; inside of some, one opens with probability `open`, else the
    innermost closes; inside of m, the innermost closes. The kind of a bracket that opens is uniform.

    Yields `TokenSequence` of ids (length + 1,) int32: 0 ... k-1 open, k ... 2k-1 close the same kinds, 2k ends a word
    and opens the row; targets are the next ids. Rows are drawn independently.

    Args:
      seed: of the rows.
      train_examples: number of training rows; a smaller number is the beginning of a greater one.
      valid_examples: number of validation rows.
      test_examples: number of test rows.
      kinds: of brackets, k; `vocab` is 2k + 1.
      depth: greatest number of open brackets, m.
      length: tokens of a row that are predicted.
      open: probability of opening where closing is possible too.
      end: probability of ending a word where that is possible.
    """

    example: ClassVar[type] = TokenSequence
    independent: ClassVar[bool] = True
    TINY: ClassVar[str] = """
    dyck.kinds = 2
    dyck.depth = 3
    dyck.length = 23
    dyck.train_examples = 101
    dyck.valid_examples = 17
    dyck.test_examples = 19
    """

    kinds: Count = 8
    depth: Count = 5
    length: Count = 128
    open: Probability = 0.5
    end: Probability = 0.25

    @property
    def vocab(self) -> int:
        """Number of ids: opening and closing brackets, and the end of a word."""
        return 2 * self.kinds + 1

    def draw(self, random: np.random.Generator, source: str) -> TokenSequence:
        """One row."""
        kinds = random.integers(self.kinds, size=self.length).tolist()
        ids = [2 * self.kinds]
        stack: list[int] = []
        for uniform, kind in zip(random.random(self.length).tolist(), kinds, strict=True):
            if uniform < self._opening[len(stack)]:
                stack.append(kind)
                ids.append(kind)
            else:
                ids.append(self.kinds + stack.pop() if stack else 2 * self.kinds)
        return TokenSequence(np.array(ids, np.int32), source=source)

    def known(self) -> dict[str, float]:
        """The entropy, exact, and what is lost by one who knows the depth but not which bracket is to be closed."""
        opening, depths = np.array(self._opening), self.depths()
        choice = _entropy(opening) + opening * math.log(self.kinds)
        closing = np.append(0.0, 1 - opening[1:])
        best = np.maximum(opening / self.kinds, 1 - opening)
        return {
            "entropy/nats_per_token": float((depths @ choice).mean()),
            "optimum/accuracy": float((depths @ best).mean()),
            "without_stack/nats_per_token": float((depths @ (choice + closing * math.log(self.kinds))).mean()),
            "chance/closing_accuracy": 1 / self.kinds,
            "chance/nats_per_token": math.log(self.vocab),
        }

    def depths(self) -> np.ndarray:
        """p(number of open brackets before token t), (length, depth + 1): powers of a transfer matrix."""
        transfer = np.zeros((self.depth + 1, self.depth + 1))
        for d, p in enumerate(self._opening):
            transfer[d, min(d + 1, self.depth)] += p
            transfer[d, max(d - 1, 0)] += 1 - p
        law = np.zeros((self.length, self.depth + 1))
        law[0, 0] = 1
        for t in range(1, self.length):
            law[t] = law[t - 1] @ transfer
        return law

    @functools.cached_property
    def _opening(self) -> tuple[float, ...]:
        """Probability of opening inside of 0, 1, ..., m brackets."""
        return (1 - self.end, *[self.open] * (self.depth - 1), 0.0)


def _entropy(p: np.ndarray) -> np.ndarray:
    """Of a choice between two with probabilities p and 1 - p, nats."""
    both = np.clip(np.stack([p, 1 - p]), np.finfo(float).tiny, 1)
    return -(both * np.log(both)).sum(axis=0)
