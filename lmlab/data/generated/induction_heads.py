"""Induction heads: a token that has come before comes again; what followed it?"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar

import numpy as np

from lmlab.contracts import TokenSequence
from lmlab.data.generated.drawing import Drawn, perfect_recall
from lmlab.ranges import Within
from lmlab.registry import datasets


@datasets.register("induction_heads")
@dataclass(frozen=True, kw_only=True)
class InductionHeads(Drawn):
    """Recall of what followed a special token (Dao et al. 2023, arXiv:2212.14052; Gu & Dao 2023, arXiv:2312.00752).

    A row of uniform ids below `symbols`, but for the special id `symbols`, which stands at a uniform place and again at
    the end: what followed it the first time is to be predicted. Trained at length 256; tested, by another instance of
    this dataset, at up to 2^20. Whether the papers count the special token in their vocabulary of 16 is not said; here
    it is not, `vocab` is 17.

    Yields `TokenSequence` of ids, targets and weights, all (length,); only the last weight is 1. Rows are drawn
    independently; with the published sizes a common row of two splits is out of the question.

    Args:
      seed: of the rows.
      train_examples: number of training rows; a smaller number is the beginning of a greater one.
      valid_examples: number of validation rows.
      test_examples: number of test rows.
      symbols: number of ordinary ids; `vocab` is one more.
      length: of a row, L.
    """

    example: ClassVar[type] = TokenSequence
    independent: ClassVar[bool] = True
    TINY: ClassVar[str] = """
    induction_heads.symbols = 7
    induction_heads.length = 11
    induction_heads.train_examples = 101
    induction_heads.valid_examples = 17
    induction_heads.test_examples = 19
    """

    symbols: Annotated[int, Within(at_least=2)] = 16
    length: Annotated[int, Within(at_least=3)] = 256

    @property
    def vocab(self) -> int:
        """Number of ids: the ordinary ones and the special one."""
        return self.symbols + 1

    def draw(self, random: np.random.Generator, source: str) -> TokenSequence:
        """One row."""
        ids = random.integers(self.symbols, size=self.length, dtype=np.int32)
        first = int(random.integers(self.length - 2))
        ids[[first, -1]] = self.symbols
        targets, weights = np.zeros(self.length, np.int32), np.zeros(self.length, np.float32)
        targets[-1], weights[-1] = ids[first + 1], 1
        return TokenSequence(ids, targets, weights, source)

    def known(self) -> dict[str, float]:
        """What can be reached, and what is reached without looking back."""
        return perfect_recall(self.symbols)
