"""The bar that the quick start must clear: an interpolated byte n-gram model, counted and evaluated exactly."""

from __future__ import annotations

import numpy as np


def bits_per_byte(train: np.ndarray, valid: np.ndarray, order: int = 4, end_of_text: int = 0) -> float:
    """Bits per byte of `valid` under an n-gram model of `train`, with Witten-Bell interpolation of all orders.

    p_n(w | h) = (c(h w) + T(h) p_{n-1}(w | h')) / (c(h) + T(h)), where T(h) is the number of different bytes
    seen after h, h' is h without its oldest byte, and p_0 = 1/256 (Witten & Bell 1991; Chen & Goodman 1998, 2.5).

    Args:
      train: stream of byte ids with `end_of_text` before, between and after the documents, 1-d.
      valid: the same of the split that is measured; its first id is only seen, the others are predicted.
      order: n, at most 7.
      end_of_text: predicted like the others, but no byte of the text: not counted in the denominator.
    """
    probability = np.full(len(valid) - 1, 1 / 256)
    for n in range(1, order + 1):
        grams, counts = np.unique(_grams(train, n, end_of_text), return_counts=True)
        contexts, first = np.unique(grams >> 8, return_index=True)
        total, kinds = np.add.reduceat(counts, first), np.diff(np.append(first, len(grams)))
        wanted = _grams(valid, n, end_of_text)
        count = _lookup(grams, counts, wanted)
        context = wanted >> 8
        total, kinds = _lookup(contexts, total, context), _lookup(contexts, kinds, context)
        probability = np.where(total > 0, (count + kinds * probability) / np.maximum(total + kinds, 1), probability)
    return float(-np.log2(probability).sum() / np.count_nonzero(valid[1:] != end_of_text))


def _grams(stream: np.ndarray, n: int, pad: int) -> np.ndarray:
    """The n-grams that end at each predicted id, as numbers with the oldest byte in front."""
    padded = np.concatenate([np.full(n, pad), stream]).astype(np.int64)
    last = np.arange(n + 1, len(padded))
    return sum(padded[last - back] << (8 * back) for back in range(n))


def _lookup(keys: np.ndarray, values: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    place = np.minimum(np.searchsorted(keys, wanted), len(keys) - 1)
    return np.where(keys[place] == wanted, values[place], 0)
