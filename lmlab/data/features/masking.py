"""What masked language models read: tokens that may be masked, and where words begin. The loss masks, on the device."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from lmlab.contracts import Document, MaskableBatch, Text, Tokenizer, Tokens
from lmlab.data.accounting import text_tables
from lmlab.data.features.rows import Batch, Rows, Setting, converts
from lmlab.data.features.stream import Packed, Stream, Windows, text_stream, token_stream


class Maskable:
    """Next-token rows, read as tokens alone.

    Args:
      rows: windows or packed documents.
      tokenizer: says which ids stand for no text, and where words begin; None for ids without a text, of which each
        is a word.
    """

    def __init__(self, rows: Windows | Packed, tokenizer: Tokenizer | None) -> None:
        self._rows, self.ids, self.targets, self.notes = rows, rows.ids, rows.targets, rows.notes
        self._marks = None if tokenizer is None else WordMarks(tokenizer)

    def __len__(self) -> int:
        return len(self._rows)

    def gather(self, rows: np.ndarray, places: np.ndarray | None = None) -> Batch:
        """Batch of `tokens`, `segment_ids`, `weights` and `word_starts`, each (B, T)."""
        batch = self._rows.gather(rows)
        tokens, there = batch["tokens"], batch["weights"] > 0
        segments = batch.get("segment_ids", there.astype(np.int32))
        special, starts = (np.zeros_like(there), there) if self._marks is None else self._marks(tokens)
        weights = (there & ~special).astype(np.float32)
        return {"tokens": tokens, "segment_ids": segments, "weights": weights, "word_starts": starts & (weights > 0)}


class WordMarks:
    """For ids, which stand for no text, and which begin a word, the white space before it included.

    Args:
      tokenizer: gives the bytes behind ids.
    """

    def __init__(self, tokenizer: Tokenizer) -> None:
        tables = text_tables(tokenizer)
        self._special = np.zeros(tokenizer.vocab_size, bool)
        self._special[list(tokenizer.special_ids.values())] = True
        self._begins_in_space = tables.word_starts_after_text == tables.word_starts_after_space
        self._ends_in_space = tables.ends_in_space
        self._ends_word = self._special | (tables.ends_in_space & (tables.word_starts_after_space > 0))

    def __call__(self, tokens: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Two bool arrays of the shape of `tokens`, (..., T); the first of a row begins a word if it is text."""
        starts = np.ones(tokens.shape, bool)
        before, here = tokens[..., :-1], tokens[..., 1:]
        starts[..., 1:] = self._ends_word[before] | (self._begins_in_space[here] & ~self._ends_in_space[before])
        special = self._special[tokens]
        return special, starts & ~special


def _maskable(stream: Stream, setting: Setting, training: bool) -> Rows:
    packed = setting.packing == "first_fit"
    rows = Packed(stream, setting.seq_len) if packed else Windows(stream, setting.seq_len, tail=not training)
    return Maskable(rows, setting.tokenizer)


@converts(Text, MaskableBatch)
def text_to_maskable(examples: Sequence[Text], setting: Setting, training: bool) -> Rows:
    """Documents as one stream, of which a loss masks tokens (Liu et al. 2019, section 4.2: FULL-SENTENCES).

    Example: Text("a bc"), Text("d"), seq_len=7
      tokens      = [[0 a _ b c 0 d]]
      segment_ids = [[1 1 1 1 1 1 1]]
      weights     = [[0 1 1 1 1 0 1]]      # ids that stand for no text are not masked
      word_starts = [[0 1 1 0 0 0 1]]      # the space belongs to the word behind it
    """
    setting.special("mask")
    return _maskable(text_stream(examples, setting.text_tokenizer), setting, training)


@converts(Document, MaskableBatch)
def document_to_maskable(examples: Sequence[Document], setting: Setting, training: bool) -> Rows:
    """Documents in sentences, a sentence to a line, as `text_to_maskable`.

    Example: Document(("a", "b")), seq_len=5, packing="first_fit"
      tokens      = [[0 a / b 0]]            # / is the line break
      segment_ids = [[1 1 1 1 0]]
      weights     = [[0 1 1 1 0]]
      word_starts = [[0 1 1 0 0]]
    """
    texts = [Text("\n".join(example.sentences), example.source) for example in examples]
    return text_to_maskable(texts, setting, training)


@converts(Tokens, MaskableBatch)
def tokens_to_maskable(examples: Sequence[Tokens], setting: Setting, training: bool) -> Rows:
    """Streams of ids; without a tokenizer, every id may be masked, and is a word of its own.

    Example: Tokens(ids(5, 6, 7, 8)), seq_len=3
      tokens      = [[5 6 7]]
      segment_ids = [[1 1 1]]
      weights     = [[1 1 1]]
      word_starts = [[1 1 1]]
    """
    if setting.tokenizer is not None:
        setting.special("mask")
    return _maskable(token_stream(examples, documents=setting.packing == "first_fit"), setting, training)
