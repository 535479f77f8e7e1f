"""Multi-query associative recall: which value stood after this key?"""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass
from typing import Annotated, ClassVar

import numpy as np

from lmlab.contracts import TokenSequence
from lmlab.data.generated.drawing import Drawn, perfect_recall
from lmlab.errors import ConfigError
from lmlab.ranges import Count, Within
from lmlab.registry import datasets

FILLER = 0


@datasets.register("mqar")
@dataclass(frozen=True, kw_only=True)
class MQAR(Drawn):
    """Multi-query associative recall (Arora et al. 2023, "Zoology", arXiv:2312.04927, section 3 and appendix A).

    A row begins with n keys, each followed by its value; keys are drawn from 1 ... V/2 - 1 and values from
    V/2 ... V - 1, each without replacement. In the rest every key comes once more, at an even distance 2g from the
    beginning of the rest, where g = 0 ... (L - 2n)/2 - 1 is drawn without replacement (as `numpy`'s `choice` does) with
    probability proportional to (g + 1)^(power - 1); there the value is to be predicted. All other places hold 0.

    Yields `TokenSequence` of ids, targets and weights, all (length,): weights are 1 where a key comes again. Rows are
    drawn independently; with the published sizes a common row of two splits is out of the question.

    Published: vocabulary 8192; (length, pairs) = (64, 4), (128, 8), (256, 16), (512, 64); 100,000 training and 3,000
    test rows, as in `experiments/data/mqar.gin`; accuracy over the predicted places.

    Args:
      seed: of the rows.
      train_examples: number of training rows; a smaller number is the beginning of a greater one.
      valid_examples: number of validation rows.
      test_examples: number of test rows.
      vocab: V, even and above `length`.
      length: L, even, at least 4 times `pairs`.
      pairs: keys with their values, n.
      power: the smaller, the sooner a key comes again; 1 is uniform, up to 2.
      random_fillers: uniform ids in the place of the 0s, as in the authors' harder variant.
    """

    example: ClassVar[type] = TokenSequence
    independent: ClassVar[bool] = True
    TINY: ClassVar[str] = """
    mqar.vocab = 38
    mqar.length = 34
    mqar.pairs = 3
    mqar.train_examples = 101
    mqar.valid_examples = 17
    mqar.test_examples = 19
    """

    valid_examples: Count = 3000
    test_examples: Count = 3000
    vocab: Annotated[int, Within(at_least=6)] = 8192
    length: Annotated[int, Within(at_least=4)] = 64
    pairs: Count = 4
    power: Annotated[float, Within(above=0, at_most=2)] = 0.01
    random_fillers: bool = False

    def __post_init__(self) -> None:
        if self.length % 2 or self.vocab % 2 or 4 * self.pairs > self.length or self.vocab <= self.length:
            raise ConfigError(
                f"mqar: length = {self.length}, pairs = {self.pairs} and vocab = {self.vocab}: length and vocab must "
                "be even, length at least 4 times pairs, and vocab above length."
            )

    def draw(self, random: np.random.Generator, source: str) -> TokenSequence:
        """One row."""
        half, context = self.vocab // 2, 2 * self.pairs
        keys = 1 + random.choice(half - 1, self.pairs, replace=False)
        values = half + random.choice(half, self.pairs, replace=False)
        # The first arrivals of processes with these rates: the law of `choice(replace=False, p=law)` in half its time.
        slots = np.argsort(random.exponential(self._mean_waits))[: self.pairs]
        ids, targets = np.full(self.length, FILLER, np.int32), np.zeros(self.length, np.int32)
        ids[:context:2], ids[1:context:2] = keys, values
        asked = context + 2 * slots
        ids[asked], targets[asked] = keys, values
        weights = np.zeros(self.length, np.float32)
        weights[asked] = 1
        if self.random_fillers:
            ids = np.where(ids == FILLER, random.integers(self.vocab, size=self.length, dtype=np.int32), ids)
        return TokenSequence(ids, targets, weights, source)

    def known(self) -> dict[str, float]:
        """What can be reached, and what one who does not know which value belongs to which key reaches."""
        return {**perfect_recall(self.pairs), "uniform/nats_per_token": math.log(self.vocab)}

    @functools.cached_property
    def _mean_waits(self) -> np.ndarray:
        """1 / p(g) up to a factor, ((L - 2n)/2,)."""
        return np.arange(1, (self.length - 2 * self.pairs) // 2 + 1) ** (1 - self.power)
