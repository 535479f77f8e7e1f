"""Bytes and words behind ids, by table lookup: what makes bits per byte and perplexity per word exact."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from lmlab.contracts import Tokenizer

_TOGETHER = 256  # texts encoded at a time
_WORD = re.compile(rb"[^ \t\n\r\v\f]+")


class TextTables(NamedTuple):
    """What each id contributes to a text's length, by id (V entries each).

    A word is a maximal run of bytes other than space, tab, newline, carriage return, vertical tab and form
    feed. How many words begin inside a token depends on whether the byte before it ends a word; a special id
    (no bytes, such as the end of a document) separates words as a space does.

    Example, for ids that stand for b"a", b" b", b"c d ":
      bytes                   = [1, 2, 4]
      word_starts_after_space = [1, 1, 2]
      word_starts_after_text  = [0, 1, 1]      # "a" and "c" continue the word before them
      ends_in_space           = [0, 0, 1]
    """

    bytes: np.ndarray
    word_starts_after_space: np.ndarray
    word_starts_after_text: np.ndarray
    ends_in_space: np.ndarray

    def words(self, tokens: Any, targets: Any) -> Any:
        """Words that begin inside each of `targets`, given the tokens just before them; NumPy or JAX arrays."""
        after_space = self.ends_in_space[tokens]
        return self.word_starts_after_text[targets] + after_space * (
            self.word_starts_after_space[targets] - self.word_starts_after_text[targets]
        )


class Account(NamedTuple):
    """What a tokenizer makes of texts, in numbers.

    `bytes` is the length of the texts' UTF-8 and `words` their maximal runs without white space; `bytes_of_ids` and
    `words_of_ids` are those of what their ids stand for: the same for a tokenizer without loss. `unknown` counts ids
    for what is not known; None where the tokenizer knows everything.
    """

    texts: int
    bytes: int
    words: int
    ids: int
    unknown: int | None
    bytes_of_ids: int
    words_of_ids: int


def account(tokenizer: Tokenizer, texts: Sequence[str]) -> Account:
    """The account of a fitted tokenizer on texts; they are encoded a part at a time."""
    tables, unknown = text_tables(tokenizer), getattr(tokenizer, "unknown", None)
    ids = found = behind = begun = 0
    for start in range(0, len(texts), _TOGETHER):
        for encoded in tokenizer.encode_batch(texts[start : start + _TOGETHER]):
            ids += len(encoded)
            behind += int(tables.bytes[encoded].sum())
            begun += int(tables.words(np.concatenate([[tokenizer.end_of_text], encoded[:-1]]), encoded).sum())
            found += 0 if unknown is None else int((encoded == unknown).sum())
    contents = [text.encode() for text in texts]
    size, words = sum(map(len, contents)), sum(len(_WORD.findall(content)) for content in contents)
    return Account(len(texts), size, words, ids, None if unknown is None else found, behind, begun)


def text_tables(tokenizer: Tokenizer) -> TextTables:
    """The tables of a tokenizer: int32 counts of shape (V,), and bool for `ends_in_space`."""
    pieces = tokenizer.token_bytes()
    alone = np.array([len(_WORD.findall(piece)) for piece in pieces], np.int32)
    continues = np.array([bool(_WORD.match(piece)) for piece in pieces], np.int32)
    ends = np.array([not piece or not _WORD.match(piece[-1:]) for piece in pieces], bool)
    return TextTables(np.array([len(piece) for piece in pieces], np.int32), alone, alone - continues, ends)
