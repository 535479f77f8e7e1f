"""Texts of examples to ids, many at a time; and what becomes of examples that a row cannot hold."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from lmlab.contracts import Tokenizer
from lmlab.errors import DataError

_TOGETHER = 1 << 20  # characters handed to the tokenizer at a time: enough for its threads, little memory


def encoded(examples: Sequence[Any], texts: Sequence[str], tokenizer: Tokenizer) -> Iterator[np.ndarray]:
    """Ids of each text; DataError names the example that a text which cannot be encoded belongs to."""
    for start, stop in _groups(texts):
        try:
            yield from tokenizer.encode_batch(texts[start:stop])
        except DataError:
            for example, text in zip(examples[start:stop], texts[start:stop], strict=True):
                try:
                    tokenizer.encode(text)
                except DataError as error:
                    raise DataError(f"{example.source}: {error}" if example.source else str(error)) from None
            raise


def _groups(texts: Sequence[str]) -> Iterator[tuple[int, int]]:
    """Ranges of texts of about `_TOGETHER` characters."""
    start = size = 0
    for i, text in enumerate(texts):
        size += len(text)
        if size >= _TOGETHER:
            yield start, i + 1
            start, size = i + 1, 0
    if start < len(texts):
        yield start, len(texts)
