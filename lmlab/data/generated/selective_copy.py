"""Selective copying: remember the data, forget the noise between them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar

import numpy as np

from lmlab.contracts import TokenSequence
from lmlab.data.generated.drawing import Drawn, perfect_recall
from lmlab.errors import ConfigError
from lmlab.ranges import Count, Within
from lmlab.registry import datasets

NOISE = 0


@datasets.register("selective_copy")
@dataclass(frozen=True, kw_only=True)
class SelectiveCopy(Drawn):
    """Selective copying (Jing et al. 2019, arXiv:1706.02761; Gu & Dao 2023, arXiv:2312.00752, section 4.1.1).

    `data` uniform ids of 1 ... `symbols` stand at random places, any set of places as likely, among 0s in the first
    `length` positions; then comes the id `symbols` + 1 `data` times, and at each the next datum is to be predicted.
    Published: length 4096, 16 data, 16 ids in all, which is 14 for data; 400,000 steps of 64 rows.

    Yields `TokenSequence` of ids, targets and weights, all (length + data,): the last `data` weights are 1. Rows are
    drawn independently; with the published sizes a common row of two splits is out of the question.

    Args:
      seed: of the rows.
      train_examples: number of training rows; a smaller number is the beginning of a greater one.
      valid_examples: number of validation rows.
      test_examples: number of test rows.
      symbols: number of ids for data; `vocab` is two more, for noise and for the marker at which to answer.
      length: positions that hold data and noise.
      data: ids to remember.
    """

    example: ClassVar[type] = TokenSequence
    independent: ClassVar[bool] = True
    TINY: ClassVar[str] = """
    selective_copy.symbols = 5
    selective_copy.length = 17
    selective_copy.data = 3
    selective_copy.train_examples = 101
    selective_copy.valid_examples = 17
    selective_copy.test_examples = 19
    """

    symbols: Annotated[int, Within(at_least=2)] = 14
    length: Count = 4096
    data: Count = 16

    def __post_init__(self) -> None:
        if self.data > self.length:
            raise ConfigError(f"selective_copy: data = {self.data} do not find room in length = {self.length}.")

    @property
    def vocab(self) -> int:
        """Number of ids: noise, data, and the marker at which to answer."""
        return self.symbols + 2

    def draw(self, random: np.random.Generator, source: str) -> TokenSequence:
        """One row."""
        data = random.integers(1, self.symbols + 1, size=self.data, dtype=np.int32)
        ids = np.full(self.length + self.data, NOISE, np.int32)
        ids[np.sort(random.choice(self.length, self.data, replace=False))] = data
        ids[self.length :] = self.symbols + 1
        targets, weights = np.zeros(len(ids), np.int32), np.zeros(len(ids), np.float32)
        targets[self.length :], weights[self.length :] = data, 1
        return TokenSequence(ids, targets, weights, source)

    def known(self) -> dict[str, float]:
        """What can be reached, and what is reached without remembering."""
        return perfect_recall(self.symbols)
