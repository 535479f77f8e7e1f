"""Pairs of passages that follow one another or do not: BERT's and ALBERT's questions of whole rows."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from lmlab.contracts import Document, SentenceOrderBatch, SentencePairBatch, Text
from lmlab.data.features.encoding import encoded
from lmlab.data.features.labelled import marked_parts, shortened
from lmlab.data.features.masking import WordMarks
from lmlab.data.features.padded import Padded, Ragged
from lmlab.data.features.rows import Rows, Setting, converts
from lmlab.errors import DataError

_SENTENCE_END = re.compile(r"(?<=[.!?])[ \t]+(?=[\"'“‘(]?[A-Z])|\n+")


@converts(Document, SentencePairBatch)
def documents_to_sentence_pairs(examples: Sequence[Document], setting: Setting, training: bool) -> Rows:
    """Two passages of whole sentences; half of the second ones are from another document (Devlin et al. 2019, A.2).

    A document is cut into passages of sentences that fill a row; each is divided between two sentences at a place that
    is drawn. What follows is the rest, or, half of the time, as much from a random place of another document; then
    the rest begins the next passage. All is drawn from the seed once: a row is the same in every epoch. A passage of
    one sentence has only a second part from elsewhere. Of passages that are too long the longer loses its end.

    Example: Document(("a", "b")), Document(("c", "d")), seq_len=6, seed=1
      tokens      = [[3 a 2 b 2 0], [3 c 2 b 2 0], [3 d 2 b 2 0]]
      segment_ids = [[1 1 1 1 1 0], [1 1 1 1 1 0], [1 1 1 1 1 0]]
      type_ids    = [[0 0 0 1 1 0], [0 0 0 1 1 0], [0 0 0 1 1 0]]
      weights     = [[0 1 0 1 0 0], [0 1 0 1 0 0], [0 1 0 1 0 0]]
      word_starts = [[0 1 0 1 0 0], [0 1 0 1 0 0], [0 1 0 1 0 0]]
      follows     = [1 0 0]
    """
    documents, drawn = _sentences(examples, setting), _drawn(setting, training)
    if len(documents) < 2:
        raise DataError("passages of other documents are needed, and this split has fewer than two documents.")
    room = setting.seq_len - 3
    return _pairs([pair for i in range(len(documents)) for pair in _passages(i, documents, room, drawn)], setting)


@converts(Document, SentenceOrderBatch)
def documents_to_sentence_order(examples: Sequence[Document], setting: Setting, training: bool) -> Rows:
    """Two passages that stand one after the other, half of them swapped (Lan et al. 2020, arXiv:1909.11942, 3.1).

    Documents are cut and divided as in `documents_to_sentence_pairs`, but that the second part is always the rest, and
    a passage of one sentence, which has no second part, is left out and counted. Of passages that are too long the
    longer part loses its end, before they are swapped. A row is the same in every epoch.

    Example: Document(("a", "b", "c")), Document(("d", "e")), seq_len=7, seed=2
      tokens      = [[3 b c 2 a 2 0], [3 d 2 e 2 0 0]]      # the first two were swapped
      segment_ids = [[1 1 1 1 1 1 0], [1 1 1 1 1 0 0]]
      type_ids    = [[0 0 0 0 1 1 0], [0 0 0 1 1 0 0]]
      weights     = [[0 1 1 0 1 0 0], [0 1 0 1 0 0 0]]
      word_starts = [[0 1 0 0 1 0 0], [0 1 0 1 0 0 0]]
      follows     = [0 1]
    """
    documents, drawn = _sentences(examples, setting), _drawn(setting, training)
    room, pairs, alone = max(setting.seq_len - 3, 0), [], 0
    for sentences in documents:
        end = 0
        while (begin := end) < len(sentences):
            middle, end = _divided(sentences, begin, room, drawn)
            if middle == end:
                alone += 1
                continue
            parts = np.concatenate(sentences[begin:middle]), np.concatenate(sentences[middle:end])
            first, second = shortened(parts, room)
            pairs.append((first, second, True) if drawn.random() < 0.5 else (second, first, False))
    if not pairs:
        raise DataError("two sentences of a document are needed in a row; no document of this split has them.")
    return _pairs(pairs, setting, {"single sentences left out": alone} if alone else {})


@converts(Text, SentencePairBatch)
def texts_to_sentence_pairs(examples: Sequence[Text], setting: Setting, training: bool) -> Rows:
    """Documents without marked sentences: `split_sentences` finds them, then as `documents_to_sentence_pairs`.

    Example: Text("A. B."), Text("C. D."), seq_len=8, seed=1
      tokens      = [[3 A . 2 B . 2 0], [3 C . 2 B . 2 0], [3 D . 2 B . 2 0]]
      segment_ids = [[1 1 1 1 1 1 1 0], [1 1 1 1 1 1 1 0], [1 1 1 1 1 1 1 0]]
      type_ids    = [[0 0 0 0 1 1 1 0], [0 0 0 0 1 1 1 0], [0 0 0 0 1 1 1 0]]
      follows     = [1 0 0]
    """
    documents = [Document(split_sentences(example.text), example.source) for example in examples]
    return documents_to_sentence_pairs(documents, setting, training)


@converts(Text, SentenceOrderBatch)
def texts_to_sentence_order(examples: Sequence[Text], setting: Setting, training: bool) -> Rows:
    """Documents without marked sentences: `split_sentences` finds them, then as `documents_to_sentence_order`.

    Example: Text("A. B."), Text("C. D."), seq_len=8, seed=1
      tokens      = [[3 A . 2 B . 2 0], [3 D . 2 C . 2 0]]
      segment_ids = [[1 1 1 1 1 1 1 0], [1 1 1 1 1 1 1 0]]
      type_ids    = [[0 0 0 0 1 1 1 0], [0 0 0 0 1 1 1 0]]
      follows     = [1 0]
    """
    documents = [Document(split_sentences(example.text), example.source) for example in examples]
    return documents_to_sentence_order(documents, setting, training)


def split_sentences(text: str) -> tuple[str, ...]:
    """Sentences end at line breaks, and at `.`, `!` or `?` before white space and a capital letter.

    A rule, not a model: "Mr. Smith" is cut in two.

    Example: "It is. Is it?\\nYes" → ("It is.", "Is it?", "Yes").
    """
    return tuple(part.strip() for part in _SENTENCE_END.split(text) if part.strip())


Pair = tuple[np.ndarray, np.ndarray, bool]
"""First part, second part, and whether it follows."""


def _pairs(pairs: Sequence[Pair], setting: Setting, notes: Mapping[str, float] | None = None) -> Rows:
    """Rows of pairs, marked and padded."""
    room = max(setting.seq_len - 3, 0)
    marks = WordMarks(setting.text_tokenizer)
    parts = [marked_parts(shortened((first, second), room), setting) for first, second, _ in pairs]
    words = [marks(tokens) for tokens, _ in parts]
    ragged = {
        "tokens": Ragged([tokens for tokens, _ in parts], setting.seq_len),
        "segment_ids": Ragged([np.ones(len(tokens), np.int32) for tokens, _ in parts], setting.seq_len),
        "type_ids": Ragged([types for _, types in parts], setting.seq_len),
        "weights": Ragged([~special for special, _ in words], setting.seq_len, np.float32),
        "word_starts": Ragged([starts for _, starts in words], setting.seq_len, np.bool_),
    }
    follows = np.array([follows for *_, follows in pairs], np.int32)
    whole = {"follows": follows, "pair_weights": np.ones(len(pairs), np.float32)}
    return Padded(ragged, whole, {"follows": float(follows.mean()), **(notes or {})})


def _sentences(examples: Sequence[Document], setting: Setting) -> list[list[np.ndarray]]:
    """Ids of the sentences of each document that has some; ConfigError where nothing can be masked."""
    setting.special("mask")
    documents = [_sentence_ids(example, setting) for example in examples]
    return [sentences for sentences in documents if sentences]


def _drawn(setting: Setting, training: bool) -> np.random.Generator:
    return np.random.Generator(np.random.PCG64([abs(setting.seed), int(training)]))


def _sentence_ids(example: Document, setting: Setting) -> list[np.ndarray]:
    """Ids of each sentence, as it stands alone."""
    found = encoded([example] * len(example.sentences), example.sentences, setting.text_tokenizer)
    return [ids for ids in found if len(ids)]


def _passages(
    document: int, documents: Sequence[list[np.ndarray]], room: int, drawn: np.random.Generator
) -> Iterator[Pair]:
    """Passages of a document, with what follows or with a part of another one, of which the rest begins the next."""
    sentences, begin = documents[document], 0
    while begin < len(sentences):
        middle, end = _divided(sentences, begin, room, drawn)
        first = np.concatenate(sentences[begin:middle])
        if middle < end and drawn.random() < 0.5:
            yield first, np.concatenate(sentences[middle:end]), True
            begin = end
            continue
        other = int(drawn.integers(len(documents) - 1))
        there = documents[other + (other >= document)]
        start = int(drawn.integers(len(there)))
        yield first, np.concatenate(there[start : _filled(there, start, room - len(first))]), False
        begin = middle


def _divided(sentences: Sequence[np.ndarray], begin: int, room: int, drawn: np.random.Generator) -> tuple[int, int]:
    """Where the passage from `begin` on is divided, and where it ends: the same where it has one sentence."""
    end = _filled(sentences, begin, room)
    middle = begin + 1 if end - begin < 2 else begin + 1 + int(drawn.integers(end - begin - 1))
    return middle, end


def _filled(sentences: Sequence[np.ndarray], begin: int, room: int) -> int:
    """The end of the sentences from `begin` on that fill `room` ids; at least one."""
    end, size = begin + 1, len(sentences[begin])
    while end < len(sentences) and size < room:
        size += len(sentences[end])
        end += 1
    return end
