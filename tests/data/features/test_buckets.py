"""Buckets: batches of one width, every row once an epoch, the same predictions as in rows of full width."""

from collections import Counter

import numpy as np
import pytest

from lmlab.contracts import Text, TextPair
from lmlab.data import open_data
from lmlab.data.features.buckets import BucketOrder, _filled
from lmlab.data.tokenizers.plain import Bytes
from lmlab.errors import ConfigError

B = 6


class Pairs:
    """Pairs of 1 to 29 letters."""

    example = TextPair

    def __init__(self, count=100):
        drawn = np.random.default_rng(3)
        self.sizes = drawn.integers(1, 30, count).tolist()

    def split(self, name):
        return [TextPair("a" * (size // 2), "b" * (size - size // 2), f"{i}") for i, size in enumerate(self.sizes)]

    def fingerprint(self):
        return {"sizes": self.sizes}


def opened(dataset=None, **settings):
    given = {"seq_len": 37, "global_batch_size": B, "buckets": (8, 17), **settings}
    return open_data(dataset or Pairs(), Bytes(), **given)


def test_the_docstrings_example():
    buckets = [bucket.tolist() for bucket in _filled(np.array([1, 3, 2, 5, 4, 3]), (3, 5), 3)]
    assert buckets == [[0, 2, 1], [5, 4, 3]]


def test_a_batch_is_as_wide_as_the_narrowest_width_that_its_rows_fit_or_were_moved_up_from():
    train = opened().train
    widths = Counter()
    for k in range(100 // B):
        batch = train.batch(k)
        width = batch["tokens"].shape[1]
        widths[width] += 1
        assert {name: values.shape for name, values in batch.items()} == dict.fromkeys(batch, (B, width))
        assert (batch["segment_ids"] > 0).sum(1).max() <= width
    assert set(widths) == {8, 17, 37} == set(train.widths)


def test_every_row_but_the_longest_that_fill_no_batch_comes_once_an_epoch_in_another_order():
    train = opened().train
    batches = 100 // B
    epochs = [np.concatenate([train.rows_of(e * batches + k) for k in range(batches)]) for e in range(3)]
    for rows in epochs:
        assert len(set(rows.tolist())) == len(rows) == 96
    assert not np.array_equal(epochs[0], epochs[1])
    left_out = set(range(100)) - set(epochs[0].tolist())
    assert train.notes["longest rows left out"] == len(left_out) == 4
    assert min(Pairs().sizes[i] for i in left_out) >= max(Pairs().sizes[i] for i in epochs[0])


def test_a_process_reads_its_rows_of_the_batch_at_the_same_width():
    train = opened().train
    for k in (0, 7, 10**6):
        whole, parts = train.batch(k), [train.batch(k, range(i, i + 2)) for i in range(0, B, 2)]
        for name, values in whole.items():
            np.testing.assert_array_equal(values, np.concatenate([part[name] for part in parts]))


def test_rows_predict_what_they_predict_without_buckets_with_less_padding():
    with_buckets, without = opened().train, opened(buckets=()).train
    for k in range(5):
        rows = with_buckets.rows_of(k)
        narrow, wide = with_buckets.batch(k), without._gather(rows)
        width = narrow["tokens"].shape[1]
        for name, values in wide.items():
            np.testing.assert_array_equal(values[:, :width], narrow[name])
            assert not values[:, width:].any(), name
    assert with_buckets.notes["padding"] < without.notes["padding"] * 2 / 3


def test_the_padding_reported_is_that_of_an_epoch():
    train = opened().train
    batches = [train.batch(k) for k in range(100 // B)]
    places = sum(batch["tokens"].size for batch in batches)
    filled = sum(int((batch["segment_ids"] > 0).sum()) for batch in batches)
    assert abs(train.notes["padding"] - (1 - filled / places)) < 1e-12


def test_an_order_of_one_bucket_is_whole_batches():
    order = BucketOrder([np.arange(12)], 4, seed=1)
    assert sorted(order[range(0, 12)].tolist()) == list(range(12))
    np.testing.assert_array_equal(order[range(2, 9)], order[range(0, 12)][2:9])


def test_what_cannot_be_sorted_into_buckets_is_refused():
    class Documents:
        example = Text

        def split(self, name):
            return [Text("abc" * 40)]

        def fingerprint(self):
            return {}

    with pytest.raises(ConfigError, match="rows that hold one example each"):
        _ = opened(Documents()).train
    with pytest.raises(ConfigError, match=r"buckets = \[17, 8\]: widths must rise"):
        _ = opened(buckets=(17, 8)).train
    with pytest.raises(ConfigError, match="below the row of 37"):
        _ = opened(buckets=(8, 37)).train
    with pytest.raises(ConfigError, match="3 rows do not fill one batch of 6"):
        _ = opened(Pairs(3)).train
