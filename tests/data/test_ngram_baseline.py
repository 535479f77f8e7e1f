"""The byte n-gram baseline against its formula, written out."""

import math
from collections import Counter, defaultdict

import numpy as np
import pytest
from baselines.ngram_bytes import bits_per_byte


def plain_bits_per_byte(train, valid, order):
    counts, followers = Counter(), defaultdict(set)
    padded = [0] * order + list(train)
    for t in range(order + 1, len(padded)):
        for n in range(1, order + 1):
            gram = tuple(padded[t - n + 1 : t + 1])
            counts[gram] += 1
            counts[("context", *gram[:-1])] += 1
            followers[gram[:-1]].add(gram[-1])

    def probability(gram):
        if not gram:
            return 1 / 256
        total, kinds = counts["context", *gram[:-1]], len(followers[gram[:-1]])
        lower = probability(gram[1:])
        return (counts[gram] + kinds * lower) / (total + kinds) if total else lower

    padded = [0] * order + list(valid)
    bits = -sum(math.log2(probability(tuple(padded[t - order + 1 : t + 1]))) for t in range(order + 1, len(padded)))
    return bits / sum(i != 0 for i in valid[1:])


@pytest.mark.parametrize("order", [1, 2, 3, 4])
def test_it_is_witten_bell_interpolation(order):
    rng = np.random.default_rng(order)
    train, valid = rng.integers(0, 5, 300), rng.integers(0, 6, 101)
    train[[0, -1]] = valid[[0, -1]] = 0
    assert bits_per_byte(train, valid, order) == pytest.approx(plain_bits_per_byte(train, valid, order), rel=1e-12)


def test_on_uniform_bytes_nothing_beats_eight_bits():
    rng = np.random.default_rng(0)
    train, valid = rng.integers(1, 256, 20_000).astype(np.uint8), rng.integers(1, 256, 2_000).astype(np.uint8)
    assert 8 <= bits_per_byte(train, valid) < 9.5
