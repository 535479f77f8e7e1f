"""Contiguous packing: every batch goes on, row by row, where the one before it ended."""

import itertools

import numpy as np
import pytest

from lmlab.contracts import MaskableBatch, Text, TokenBatch, Tokens
from lmlab.data import open_data
from lmlab.data.datasets.mixture import Mixture
from lmlab.data.datasets.random_tokens import RandomTokens
from lmlab.data.features import Setting, conversion
from lmlab.data.features.lanes import Lanes
from lmlab.data.features.stream import Windows, token_stream
from lmlab.data.tokenizers.plain import Bytes
from lmlab.errors import ConfigError, DataError

T, B = 5, 3


def lanes_of(*lengths, seq_len=2, lanes=2, training=True):
    """Streams of the ids 0, 1, 2, ..., cut into windows of `seq_len` pairs."""
    edges = np.cumsum([0, *lengths])
    streams = [Tokens(np.arange(start, stop)) for start, stop in itertools.pairwise(edges)]
    windows = Windows(token_stream(streams, documents=False), seq_len, tail=not training)
    return Lanes(windows, lanes, training)


def first_tokens(rows):
    """The first token of each window, batch by batch."""
    batch = rows.gather(np.arange(len(rows)))
    return batch["tokens"][:, 0].tolist(), batch["fresh"].astype(int).tolist(), batch["weights"].sum(1).tolist()


def test_the_worked_example():
    """Windows a to g begin at the tokens 0, 2, ..., 12, of which the last is half full."""
    assert first_tokens(lanes_of(14)) == ([0, 6, 2, 8, 4, 10], [1, 1, 0, 0, 0, 0], [2] * 6)
    found = first_tokens(lanes_of(14, training=False))
    assert found == ([0, 8, 2, 10, 4, 12, 6, 0], [1, 1, 0, 0, 0, 0, 0, 0], [2, 2, 2, 2, 2, 1, 2, 0])
    assert lanes_of(14).notes == {"padding": 0.0}
    assert lanes_of(16).notes == {"padding": 0.0, "windows left out": 1}


def test_a_row_that_begins_another_stream_is_fresh():
    """Streams of 5 and 9 ids are windows at 0, 2 and at 5, 7, 9, 11: nothing is predicted from one to the other."""
    tokens, fresh, _ = first_tokens(lanes_of(5, 9))
    assert tokens == [0, 7, 2, 9, 5, 11]
    assert fresh == [1, 1, 0, 0, 1, 0]


def train_of(count=571, **changes):
    settings = {"seq_len": T, "global_batch_size": B, "seed": 3, "packing": "contiguous", **changes}
    return open_data(RandomTokens(11, count), None, **settings)


def test_each_lane_is_one_part_of_the_stream_in_every_epoch():
    data = train_of()
    ids = RandomTokens(11, 571).split("train")[0].ids
    windows = 570 // T // B
    batches = [data.train.batch(k) for k in range(2 * windows)]
    for epoch in (batches[:windows], batches[windows:]):
        tokens, targets = (np.concatenate([batch[name] for batch in epoch], 1) for name in ("tokens", "targets"))
        for lane in range(B):
            begin, length = lane * windows * T, windows * T
            np.testing.assert_array_equal(tokens[lane], ids[begin : begin + length])
            np.testing.assert_array_equal(targets[lane], ids[begin + 1 : begin + length + 1])
        assert [batch["fresh"].tolist() for batch in epoch] == [[k == 0] * B for k in range(windows)]
    assert data.train.targets_per_epoch == windows * T * B


@pytest.mark.parametrize("seed", [3, 4])
def test_the_seed_changes_no_order(seed):
    np.testing.assert_array_equal(train_of(seed=seed).train.rows_of(7), np.arange(7 * B, 8 * B))


@pytest.mark.parametrize("lanes", [1, 3, 7, 50])
@pytest.mark.parametrize("lengths", [(97,), (2, 41, 33)])
def test_an_evaluation_predicts_every_token_once_and_reads_on_without_a_gap(lanes, lengths):
    rows = lanes_of(*lengths, seq_len=T, lanes=lanes, training=False)
    batch = rows.gather(np.arange(len(rows)))
    counted = batch["weights"] > 0
    starts = np.cumsum([0, *lengths[:-1]])
    assert sorted(batch["targets"][counted]) == sorted(set(range(sum(lengths))) - set(starts.tolist()))
    assert rows.targets == counted.sum()
    for lane in range(lanes):
        mine = np.arange(lane, len(rows), lanes)
        for before, after in itertools.pairwise(mine):
            if counted[after].any() and not batch["fresh"][after]:
                assert batch["tokens"][after, 0] == batch["targets"][before, -1]


def test_text_and_documents_are_streams_too():
    setting = Setting(3, Bytes(), packing="contiguous", lanes=2)
    rows = conversion(Text, TokenBatch)([Text("abcde"), Text("fg")], setting, True)
    tokens = [bytes(row).decode() for row in rows.gather(np.arange(2))["tokens"].astype(np.uint8)]
    assert tokens == ["\0ab", "cde"]


def test_too_little_data_for_a_window_in_every_lane_is_named():
    with pytest.raises(DataError, match=r"seq_len \+ 1 = 6 tokens for each row of a batch.*global_batch_size"):
        train_of(B * T).train  # noqa: B018


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"buckets": (3,)}, "experiment.buckets chooses the rows of each batch anew"),
        ({"dataset": Mixture((RandomTokens(11, 99), RandomTokens(11, 98)), (1.0, 1.0))}, "a mixture chooses the rows"),
        ({"reads": MaskableBatch}, "'random_tokens' gives Tokens, of which a MaskableBatch is made"),
    ],
)
def test_what_is_no_stream_is_refused(changes, text):
    dataset = changes.pop("dataset", RandomTokens(11, 571))
    with pytest.raises(ConfigError, match=text):
        open_data(dataset, None, seq_len=T, global_batch_size=B, packing="contiguous", **changes)
