"""The dataset `english_spanish`: the verses of the Bible in early modern English and in Spanish."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, ClassVar

from lmlab_third_party.sword.ztext import verses
from lmlab_third_party.verses import chapter_of, split_of_chapter

from lmlab.contracts import TextPair
from lmlab.data.archives import Archive, Origin, members
from lmlab.data.corpus import Corpus
from lmlab.registry import datasets

ENGLISH = Archive(
    name="sword-text-kjv_14.3-1_all.deb",
    client="apt",
    package="sword-text-kjv",
    version="14.3-1",
    sha256="9f463f28ce665f6f528fc723179722bced880a4c5485f7a41bf742838315de57",
    size=2_800_476,
    licence="public domain",
    what="the King James Version of 1769 as a SWORD module",
)
SPANISH = Archive(
    name="sword-text-sparv_2.60-1_all.deb",
    client="apt",
    package="sword-text-sparv",
    version="2.60-1",
    sha256="5c87f9b2bc97457e8a872f5bae7ea7ce59cb3de1dcee73e4d4740451863694cf",
    size=2_722_332,
    licence="public domain",
    what="the Reina-Valera version of 1909 as a SWORD module",
)

_FOLDER = "usr/share/sword/modules/texts/ztext/"


@datasets.register("english_spanish")
@dataclass(frozen=True)
class EnglishSpanish:
    """Verses in English and Spanish: 31,084 pairs, public domain.

    From the Debian packages `sword-text-kjv` 14.3-1 (King James Version, text of 1769) and `sword-text-sparv` 2.60-1
    (Reina-Valera of 1909), both in the numbering of the former: `lmlab data fetch english_spanish` (5.5 MB, by apt).
    `text` is English, `target` Spanish; `source` the verse, such as `Genesis 1:1`.

    Markup, notes and headings are left out (`lmlab_third_party.sword.ztext.plain`); superscriptions of psalms belong to
    the first verse, in both languages. The 18 of 31,102 English verses that the Spanish module leaves empty, because
    it numbers a few chapters otherwise, give no pair.

    Splits by chapter, by the md5 of its name (`lmlab_third_party.verses`): 28,417 pairs of train, 1,379 of valid,
    1,288 of test. The same chapters are held out in `english_japanese`.
    """

    example: ClassVar[type] = TextPair
    part_of: ClassVar[str] = "chapter"
    origin: ClassVar[Origin] = Origin(
        "Debian sword-text-kjv 14.3, sword-text-sparv 2.60", "public domain", "8.0 MB", (ENGLISH, SPANISH)
    )

    def split(self, name: str) -> tuple[TextPair, ...]:
        """The pairs of a split, in the order of the verses."""
        return self._corpus.split(name)

    def fingerprint(self) -> dict[str, Any]:
        """The archives' checksums, and the contents of every split."""
        return {"archives": [ENGLISH.sha256, SPANISH.sha256], **self._corpus.fingerprint()}

    @functools.cached_property
    def _corpus(self) -> Corpus[TextPair]:
        return Corpus.of("english_spanish", _pairs(), "It has train, valid and test.")


def _pairs() -> Iterator[tuple[str, TextPair]]:
    english, spanish = _module(ENGLISH, "engKJV2006eb"), _module(SPANISH, "spaRV1909eb")
    for verse, text in english.items():
        if verse in spanish:
            chapter = chapter_of(verse)
            yield split_of_chapter(chapter), TextPair(text, spanish[verse], f"{chapter}:{verse[2]}")


def _module(archive: Archive, name: str) -> dict[tuple[int, int, int], str]:
    folder = f"{_FOLDER}{name}/"
    files = {path.removeprefix(folder): content for path, content in members(archive, folder)}
    return verses(files, f"{archive.name}: {name}")
