"""The word n-gram model that neural language models on Brown are compared with, counted and evaluated exactly."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np


def word_ids(words: Sequence[str], rare: int = 3) -> tuple[np.ndarray, int]:
    """Ids of the words of a corpus, and how many kinds there are; words that occur `rare` times or less are id 0.

    As Bengio et al. (2003, section 4.1) count them: over the whole corpus, so that whatever occurs in the held-out
    text only, but more often, is a kind of its own; case is kept; marks of punctuation are words.
    """
    counts = Counter(words)
    ids = {word: number for number, word in enumerate((w for w, n in counts.items() if n > rare), 1)}
    return np.array([ids.get(word, 0) for word in words]), len(ids) + 1


def perplexity(stream: np.ndarray, train: slice, heldout: slice, vocab: int, order: int = 3) -> float:
    """Perplexity of stream[heldout] under an interpolated Kneser-Ney model of stream[train].

    p_n(w | h) = max(c_n(h w) - d_n, 0) / c_n(h) + d_n T_n(h) / c_n(h) p_{n-1}(w | h'), and p_{n-1}(w | h') where
    c_n(h) = 0. c is the number of occurrences at the highest order, at the lower ones the number of different words
    before the n-gram; T(h) is the number of different words after h, h' is h without its oldest word, p_0 = 1 / vocab,
    d_n = n1 / (n1 + 2 n2) with n1 and n2 the numbers of n-grams of count 1 and 2 (Kneser & Ney 1995; Chen & Goodman
    1998, section 4.1.6).

    On Brown (1,161,192 tokens without marks of sentences or paragraphs; 800,000 to count, the next 200,000 are valid,
    the rest test; rare words merged by their count in the whole corpus) it gets, valid / test:

      rare <= 3, case kept (17,905 kinds)        378.1 / 357.7    the references of the corpus
      rare <= 3, lower case (16,690 kinds)       374.6 / 354.6
      rare <= 2, case kept (22,340 kinds)        432.2 / 405.6
      rare <= 4, case kept (15,174 kinds)        339.3 / 324.3
      rare <= 3 of the 800,000 (14,114 kinds)    215.2 / 206.5
      rare <= 3, three discounts (Chen & Goodman's modified Kneser-Ney)    350.3 / 332.6

    Bengio et al. print 16,383 kinds, of which some mark paragraphs, and 323 on test for a back-off model.

    Args:
      stream: ids of all words, 1-d, below `vocab`; contexts at the beginning are filled up with a word of its own.
      train: the part that is counted.
      heldout: the part that is measured; the contexts of its first words may lie before it.
      vocab: number of kinds, V.
      order: n, such that (V + 1)^n is below 2^63.
    """
    probability = np.full(len(stream[heldout]), 1 / vocab)
    counted = [np.unique(_grams(stream, order, vocab)[train], return_counts=True)]
    for n in range(order - 1, 0, -1):  # an n-gram counts once for each word before it
        counted.insert(0, np.unique(counted[0][0] % (vocab + 1) ** n, return_counts=True))
    for n, (grams, counts) in enumerate(counted, 1):
        contexts, first = np.unique(grams // (vocab + 1), return_index=True)
        total, kinds = np.add.reduceat(counts, first), np.diff(np.append(first, len(grams)))
        ones, twos = (counts == 1).sum(), (counts == 2).sum()
        discount = ones / (ones + 2 * twos)
        wanted = _grams(stream, n, vocab)[heldout]
        context = wanted // (vocab + 1)
        own = np.maximum(_lookup(grams, counts, wanted) - discount, 0)
        total, kinds = _lookup(contexts, total, context), _lookup(contexts, kinds, context)
        probability = np.where(total > 0, (own + discount * kinds * probability) / np.maximum(total, 1), probability)
    return float(np.exp(-np.log(probability).mean()))


def _grams(stream: np.ndarray, n: int, vocab: int) -> np.ndarray:
    """The n-gram that ends at each word, as a number with the oldest word in front; `vocab` stands before the first."""
    padded = np.concatenate([np.full(n - 1, vocab), stream]).astype(np.int64)
    return sum(padded[n - 1 - back : len(padded) - back] * (vocab + 1) ** back for back in range(n))


def _lookup(keys: np.ndarray, values: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    place = np.minimum(np.searchsorted(keys, wanted), len(keys) - 1)
    return np.where(keys[place] == wanted, values[place], 0)
