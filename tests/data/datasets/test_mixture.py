"""Mixtures: each part has its share of the places, exactly in every thousand, and each of its rows once per epoch."""

from collections import Counter

import numpy as np
import pytest

from lmlab.contracts import Text, TextPair, Tokens
from lmlab.data import open_data
from lmlab.data.datasets.mixture import Mixture
from lmlab.data.datasets.random_tokens import RandomTokens
from lmlab.data.features.mixing import BLOCK, MixedOrder, quotas_of
from lmlab.data.tokenizers.plain import Bytes
from lmlab.errors import ConfigError


class Letters:
    """So many documents of one letter."""

    example = Text

    def __init__(self, letter, count):
        self.letter, self.count = letter, count

    def split(self, name):
        return [Text(self.letter * 5, f"{self.letter}{i}") for i in range(self.count)]

    def fingerprint(self):
        return {"letter": self.letter, "count": self.count}


class Pairs:
    example = TextPair

    def split(self, name):
        return [TextPair("xw", "yz", f"{i}") for i in range(7)]

    def fingerprint(self):
        return {}


def opened(mixture, tokenizer, **settings):
    return open_data(mixture, tokenizer, **{"seq_len": 6, "global_batch_size": 10, "overlong": "cut", **settings})


def test_every_thousand_places_hold_each_part_as_often_as_its_weight_says():
    order = MixedOrder([17, 5, 300], [(0, (3.0, 1.0, 1.0))], batch=10, seed=4)
    rows = order[range(0, 3 * BLOCK)]
    part = np.searchsorted([17, 22], rows, side="right")
    for block in part.reshape(3, BLOCK):
        assert np.bincount(block).tolist() == [600, 200, 200]
    assert (np.diff(part) != 0).mean() > 0.4, "they are mixed, not one after the other"


def test_a_part_gives_each_of_its_rows_once_before_any_again():
    order = MixedOrder([30, 7], [(0, (0.9, 0.1))], batch=1, seed=0)
    rows = order[range(0, 20 * BLOCK)]
    for low, high in ((0, 30), (30, 37)):
        counts = Counter(rows[(rows >= low) & (rows < high)].tolist())
        assert len(counts) == high - low and max(counts.values()) - min(counts.values()) <= 1


def test_a_place_holds_the_same_row_however_it_is_asked_for():
    order = MixedOrder([17, 5], [(0, (2.0, 1.0)), (130, (0.0, 1.0)), (400, (1.0, 1.0))], batch=10, seed=4)
    whole = order[range(0, 6000)]
    for start, stop in ((0, 10), (995, 1005), (1290, 1310), (3990, 4010), (5990, 6000)):
        np.testing.assert_array_equal(order[range(start, stop)], whole[start:stop])
    np.testing.assert_array_equal(order[range(3990, 4010, 3)], whole[3990:4010:3])
    assert len(MixedOrder([17, 5], [(0, (1.0, 1.0))], 10, 4)[range(10**12, 10**12 + 10)]) == 10


def test_stages_change_the_shares_at_their_step_and_the_realised_counts_are_those_of_the_order():
    order = MixedOrder([17, 5], [(0, (2.0, 1.0)), (130, (0.0, 1.0)), (400, (1.0, 1.0))], batch=10, seed=4)
    part = (order[range(0, 6000)] >= 17).astype(int)
    assert (part[1300:4000] == 1).all() and 0.2 < part[:1300].mean() < 0.45 and 0.4 < part[4000:].mean() < 0.6
    for stop in (0, 1, 999, 1000, 1299, 1300, 1301, 4000, 4567, 6000):
        assert order.counts(stop).tolist() == np.bincount(part[:stop], minlength=2).tolist()


def test_shares_are_whole_places_by_largest_remainders():
    assert quotas_of((1, 1, 1)).tolist() == [334, 333, 333]
    assert quotas_of((2.0, 0.0, 6.0)).tolist() == [250, 0, 750]
    with pytest.raises(ConfigError, match="resolved to 1/1000"):
        quotas_of((1.0, 1e-6))
    with pytest.raises(ConfigError, match="none may be negative"):
        quotas_of((1.0, -1.0))


def test_batches_and_evaluations_hold_the_parts_rows():
    data = opened(Mixture((Letters("a", 40), Letters("b", 11)), (4.0, 1.0)), Bytes())
    letters = Counter()
    for k in range(100):
        letters.update(data.train.batch(k)["tokens"][:, 1].tolist())
    assert letters == {ord("a"): 800, ord("b"): 200}
    assert data.train.realised(100) == {"Letters (0)": 800, "Letters (1)": 200}
    valid = data.split("valid")
    seen = np.concatenate([valid.batch(i)["targets"] for i in range(len(valid))])
    assert Counter(seen[seen > 0].tolist()) == {ord("a"): 200, ord("b"): 55}


def test_parts_with_and_without_segments_stand_in_one_batch():
    data = opened(Mixture((Letters("a", 40), Pairs())), Bytes(), seq_len=8)
    batch = data.train.batch(0)
    letters = batch["tokens"][:, 1] == ord("a")
    assert letters.any() and not letters.all()
    assert batch["segment_ids"].any() and (batch["positions"][:, :3] == [0, 1, 2]).all()
    pair = np.flatnonzero(batch["weights"].sum(1) == 3)[0]
    assert batch["targets"][pair][batch["weights"][pair] > 0].tolist() == [ord("y"), ord("z"), 0]


def test_what_cannot_be_mixed_is_refused():
    with pytest.raises(ConfigError, match="3 weights for 2 parts"):
        Mixture((Letters("a", 2), Letters("b", 2)), (1.0, 2.0, 3.0))
    with pytest.raises(ConfigError, match="parts is empty"):
        Mixture(())
    with pytest.raises(ConfigError, match=r"begin at steps \(5, 5\)"):
        Mixture((Letters("a", 2),), (), ((5, (1.0,)), (5, (1.0,))))
    with pytest.raises(ConfigError, match="yields ids, not text"):
        opened(Mixture((Letters("a", 40), RandomTokens())), Bytes())
    with pytest.raises(ConfigError, match=r"vocabularies of \[7, 11\]"):
        _ = opened(Mixture((RandomTokens(vocab=7), RandomTokens(vocab=11))), None).vocab
    assert Mixture((RandomTokens(vocab=7),)).example is Tokens
