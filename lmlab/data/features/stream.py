"""Next-token rows, cut from one stream of ids.

All packings cut the same stream, in which an end-of-text id stands before, between and behind the documents, so
that every token of a split is predicted exactly once, given what stands before it:

    documents  [5, 6, 7], [8]            end of text 0
    stream     0 5 6 7 0 8 0             6 pairs (token, target): 0→5 5→6 6→7 7→0 0→8 8→0
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from lmlab.contracts import Document, Text, TokenBatch, Tokenizer, Tokens
from lmlab.data.features.encoding import encoded
from lmlab.data.features.lanes import Lanes
from lmlab.data.features.packing import first_fit
from lmlab.data.features.rows import Batch, Rows, Setting, converts


@dataclass(frozen=True, eq=False)
class Stream:
    """Ids, and which of the pairs (ids[t], ids[t+1]) are to be learned from.

    Args:
      ids: 1-d, of any integer type; may be a memory map.
      spans: (S, 2) ranges [start, stop) of pairs that follow one another; windows do not cross them.
      documents: (N, 2) ranges of pairs, one per document.
      weights: how much each pair counts, (len(ids) - 1,); None: 1 each.
    """

    ids: np.ndarray
    spans: np.ndarray
    documents: np.ndarray
    weights: np.ndarray | None = None


class Windows:
    """Rows of `seq_len` pairs that follow one another; each begins with the last target of the one before.

    Example (seq_len 4, the stream above; padding is 0):
      tokens  = [0 5 6 7], [0 8 0 0]
      targets = [5 6 7 0], [8 0 0 0]
      weights = [1 1 1 1], [1 1 0 0]      # the second row, the tail, is in evaluations only

    Args:
      stream: what is cut.
      seq_len: pairs per row, T.
      tail: keep what is left over at the end of a span, padded with weight 0.
    """

    def __init__(self, stream: Stream, seq_len: int, tail: bool) -> None:
        self.ids, self.seq_len = stream.ids, seq_len
        self._start, self._stop = stream.spans[:, 0], stream.spans[:, 1]
        pairs = self._stop - self._start
        self._end_row = np.cumsum(-(-pairs // seq_len) if tail else pairs // seq_len)
        self.targets = int(pairs.sum() if tail else (pairs // seq_len).sum() * seq_len)
        self.notes = {"padding": 1 - self.targets / max(len(self) * seq_len, 1)}

    def __len__(self) -> int:
        return int(self._end_row[-1]) if len(self._end_row) else 0

    @property
    def beginnings(self) -> np.ndarray:
        """The rows that follow no other: the first one of each span, (S,)."""
        return np.append(0, self._end_row[:-1])

    def gather(self, rows: np.ndarray, places: np.ndarray | None = None) -> Batch:
        """Batch of `tokens`, `targets` and `weights`, each (B, T)."""
        span = np.searchsorted(self._end_row, rows, side="right")
        before = np.where(span > 0, self._end_row[span - 1], 0)
        start = self._start[span] + (rows - before) * self.seq_len
        place = start[:, None] + np.arange(self.seq_len + 1)
        ids = self.ids[np.minimum(place, self._stop[span][:, None])].astype(np.int32)
        tokens, targets = ids[:, :-1].copy(), ids[:, 1:].copy()
        padding = place[:, :-1] >= self._stop[span][:, None]
        if padding.any():
            tokens[padding] = targets[padding] = 0
        return {"tokens": tokens, "targets": targets, "weights": (~padding).astype(np.float32)}


class Packed:
    """Rows of whole documents, first fit, with `segment_ids` and `positions`; longer documents are cut into pieces.

    Each piece is a segment of its own: nothing is seen across its edges. The end-of-text id before a document
    is its first token, the one behind it is its last target.

    Example (seq_len 4, the stream above plus a document [9] and its end; padding is 0):
      tokens      = [0 5 6 7], [0 8 0 9]
      targets     = [5 6 7 0], [8 0 9 0]
      weights     = [1 1 1 1], [1 1 1 1]
      segment_ids = [1 1 1 1], [1 1 2 2]      # 0 is padding
      positions   = [0 1 2 3], [0 1 0 1]

    Args:
      stream: what is packed.
      seq_len: pairs per row, T.
      together: several documents to a row; without, each piece has a row of its own.
    """

    def __init__(self, stream: Stream, seq_len: int, together: bool = True) -> None:
        self.ids, self._seq_len, self._weights = stream.ids, seq_len, stream.weights
        start, length = _pieces(stream.documents, seq_len)
        alone = np.arange(len(length)), np.zeros(len(length), np.int64)
        row, column = first_fit(length, seq_len) if together else alone
        order = np.argsort(row, kind="stable")
        self._start, self._length, self._column = start[order], length[order], column[order]
        self._first = np.searchsorted(row[order], np.arange(row.max(initial=-1) + 2))
        self.targets = int(length.sum() if self._weights is None else np.count_nonzero(self._weights))
        self.notes: dict[str, float] = {"padding": 1 - int(length.sum()) / max(len(self) * seq_len, 1)}
        if not together:
            self.lengths = self._length

    def __len__(self) -> int:
        return len(self._first) - 1

    def gather(self, rows: np.ndarray, places: np.ndarray | None = None) -> Batch:
        """Batch of `tokens`, `targets`, `weights`, `segment_ids` and `positions`, each (B, T)."""
        count = self._first[rows + 1] - self._first[rows]
        segment = _ranges(count)
        piece = np.repeat(self._first[rows], count) + segment
        length = self._length[piece]
        within = _ranges(length)
        source = np.repeat(self._start[piece], length) + within
        row = np.repeat(np.arange(len(rows)), count)
        place = np.repeat(row * self._seq_len + self._column[piece], length) + within
        filled = {
            "tokens": self.ids[source],
            "targets": self.ids[source + 1],
            "weights": 1 if self._weights is None else self._weights[source],
            "segment_ids": np.repeat(segment + 1, length),
            "positions": within,
        }
        return {name: self._padded(name, values, place, len(rows)) for name, values in filled.items()}

    def _padded(self, name: str, values: np.ndarray | int, place: np.ndarray, rows: int) -> np.ndarray:
        padded = np.zeros(rows * self._seq_len, np.float32 if name == "weights" else np.int32)
        padded[place] = values
        return padded.reshape(rows, self._seq_len)


def _pieces(documents: np.ndarray, longest: int) -> tuple[np.ndarray, np.ndarray]:
    """Starts and lengths of the documents' pieces, none longer than `longest`."""
    size = documents[:, 1] - documents[:, 0]
    count = -(-size // longest)
    part = _ranges(count) * longest
    return np.repeat(documents[:, 0], count) + part, np.minimum(np.repeat(size, count) - part, longest)


def _ranges(counts: np.ndarray) -> np.ndarray:
    """[2, 3] → [0, 1, 0, 1, 2]."""
    return np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts)


def text_stream(documents: Sequence[Text], tokenizer: Tokenizer) -> Stream:
    """All documents as one stream of ids of the smallest sufficient type; DataError names the one that cannot be."""
    dtype = np.min_scalar_type(tokenizer.vocab_size - 1)
    end = np.array([tokenizer.end_of_text], dtype)
    parts, lengths = [end], [0]
    for ids in encoded(documents, [document.text for document in documents], tokenizer):
        parts += [ids.astype(dtype), end]
        lengths.append(len(ids) + 1)
    ids, edges = np.concatenate(parts), np.cumsum(lengths)
    return Stream(ids, np.array([[0, len(ids) - 1]]), np.stack([edges[:-1], edges[1:]], axis=1))


def token_stream(examples: Sequence[Tokens], documents: bool = True) -> Stream:
    """Streams of ids as they are (one stays the memory map that it is); none is predicted across two of them.

    Without `documents`, each stream counts as one: those of a large corpus take memory, and windows need none.
    """
    ids = examples[0].ids if len(examples) == 1 else np.concatenate([example.ids for example in examples])
    edges = np.cumsum([0, *(len(example.ids) for example in examples)])
    spans = np.stack([edges[:-1], np.maximum(edges[1:] - 1, edges[:-1])], axis=1)
    if not documents:
        return Stream(ids, spans, spans)
    return Stream(ids, spans, np.concatenate([_documents(*each) for each in zip(examples, spans, strict=True)]))


def _documents(example: Tokens, span: np.ndarray) -> np.ndarray:
    """Ranges of pairs of the documents of a stream: each from the end-of-text before it to the one behind it."""
    if example.starts is None:
        return span[None]
    edges = np.append(np.asarray(example.starts).astype(np.int64) - 1 + span[0], span[1])
    return np.stack([edges[:-1], edges[1:]], axis=1)


def _rows(stream: Stream, setting: Setting, training: bool) -> Rows:
    if setting.packing == "first_fit":
        return Packed(stream, setting.seq_len)
    windows = Windows(stream, setting.seq_len, tail=not training)
    return Lanes(windows, setting.lanes, training) if setting.packing == "contiguous" else windows


@converts(Text, TokenBatch)
def text_to_tokens(examples: Sequence[Text], setting: Setting, training: bool) -> Rows:
    """Documents to next-token rows.

    Example: Text("ab"), Text("c"), seq_len=5
      tokens  = [[0 a b 0 c]]
      targets = [[a b 0 c 0]]
      weights = [[1 1 1 1 1]]
    """
    return _rows(text_stream(examples, setting.text_tokenizer), setting, training)


@converts(Document, TokenBatch)
def document_to_tokens(examples: Sequence[Document], setting: Setting, training: bool) -> Rows:
    """Documents in sentences to next-token rows, a sentence to a line.

    Example: Document(("a", "b")), seq_len=4, packing="first_fit"
      tokens      = [[0 a / b]]      # / is the line break
      targets     = [[a / b 0]]
      weights     = [[1 1 1 1]]
      segment_ids = [[1 1 1 1]]
      positions   = [[0 1 2 3]]
    """
    texts = [Text("\n".join(example.sentences), example.source) for example in examples]
    return text_to_tokens(texts, setting, training)


@converts(Tokens, TokenBatch)
def tokens_to_tokens(examples: Sequence[Tokens], setting: Setting, training: bool) -> Rows:
    """Streams of ids to next-token rows.

    Example: Tokens(ids(5, 6, 7)), Tokens(ids(8, 9)), seq_len=2
      tokens  = [[5 6]]      # what does not fill a row is left out of training
      targets = [[6 7]]
      weights = [[1 1]]
    """
    return _rows(token_stream(examples, documents=setting.packing == "first_fit"), setting, training)
