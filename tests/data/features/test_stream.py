"""Rows: the docstrings' examples, and that every token of a split is predicted exactly once."""

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lmlab.contracts import Text, TokenBatch, Tokens
from lmlab.data.features import conversion
from lmlab.data.features.stream import Packed, Windows, text_stream, token_stream
from lmlab.data.tokenizers.plain import Bytes
from lmlab.errors import ConfigError, DataError


def stream_of(*documents):
    return text_stream([Text("".join(map(chr, ids))) for ids in documents], Bytes())


def everything(rows):
    return {name: values.tolist() for name, values in rows.gather(np.arange(len(rows))).items()}


def test_a_stream_has_an_end_of_text_before_between_and_behind_the_documents():
    stream = stream_of([5, 6, 7], [8])
    assert stream.ids.tolist() == [0, 5, 6, 7, 0, 8, 0] and stream.ids.dtype == np.uint8
    assert stream.spans.tolist() == [[0, 6]] and stream.documents.tolist() == [[0, 4], [4, 6]]


def test_windows_worked_example():
    rows = Windows(stream_of([5, 6, 7], [8]), 4, tail=True)
    assert everything(rows) == {
        "tokens": [[0, 5, 6, 7], [0, 8, 0, 0]],
        "targets": [[5, 6, 7, 0], [8, 0, 0, 0]],
        "weights": [[1, 1, 1, 1], [1, 1, 0, 0]],
    }
    assert len(Windows(stream_of([5, 6, 7], [8]), 4, tail=False)) == 1


def test_first_fit_worked_example():
    rows = Packed(stream_of([5, 6, 7], [8], [9]), 4)
    assert everything(rows) == {
        "tokens": [[0, 5, 6, 7], [0, 8, 0, 9]],
        "targets": [[5, 6, 7, 0], [8, 0, 9, 0]],
        "weights": [[1, 1, 1, 1], [1, 1, 1, 1]],
        "segment_ids": [[1, 1, 1, 1], [1, 1, 2, 2]],
        "positions": [[0, 1, 2, 3], [0, 1, 0, 1]],
    }


def test_a_long_document_is_cut_into_segments_and_padding_is_zero():
    rows = Packed(stream_of([5, 6, 7, 8, 9]), 4)
    assert everything(rows) == {
        "tokens": [[0, 5, 6, 7], [8, 9, 0, 0]],
        "targets": [[5, 6, 7, 8], [9, 0, 0, 0]],
        "weights": [[1, 1, 1, 1], [1, 1, 0, 0]],
        "segment_ids": [[1, 1, 1, 1], [1, 1, 0, 0]],
        "positions": [[0, 1, 2, 3], [0, 1, 0, 0]],
    }


documents = st.lists(st.lists(st.integers(1, 99), min_size=1, max_size=23), min_size=1, max_size=12)


@given(documents, st.integers(1, 11), st.booleans())
def test_an_evaluation_predicts_every_token_once_after_the_token_before_it(docs, seq_len, packed):
    stream = stream_of(*docs)
    rows = Packed(stream, seq_len) if packed else Windows(stream, seq_len, tail=True)
    batch = rows.gather(np.arange(len(rows)))
    real = batch["weights"] == 1
    pairs = list(zip(batch["tokens"][real].tolist(), batch["targets"][real].tolist(), strict=True))
    text = [0, *(i for doc in docs for i in (*doc, 0))]
    assert sorted(pairs) == sorted(itertools.pairwise(text))
    assert rows.targets == len(pairs) == sum(len(doc) + 1 for doc in docs)
    assert not batch["tokens"][~real].any() and not batch["targets"][~real].any()
    assert {name: values.dtype for name, values in batch.items() if name == "weights"} == {"weights": np.float32}


@given(documents, st.integers(2, 11))
def test_packed_segments_are_pieces_of_documents_with_positions_from_zero(docs, seq_len):
    rows = Packed(stream_of(*docs), seq_len)
    batch = rows.gather(np.arange(len(rows)))
    for r in range(len(rows)):
        numbers = batch["segment_ids"][r]
        assert numbers[0] == 1 and (np.diff(numbers[numbers > 0]) <= 1).all()
        for number in range(1, numbers.max() + 1):
            here = numbers == number
            assert batch["positions"][r][here].tolist() == list(range(here.sum()))
            assert np.diff(np.flatnonzero(here)).max(initial=1) == 1
            assert batch["targets"][r][here][:-1].tolist() == batch["tokens"][r][here][1:].tolist()
        assert (batch["weights"][r] == (numbers > 0)).all()


@given(documents, st.integers(1, 7), st.booleans(), st.data())
def test_a_row_is_the_same_in_every_company(docs, seq_len, packed, data):
    stream = stream_of(*docs)
    rows = Packed(stream, seq_len) if packed else Windows(stream, seq_len, tail=True)
    wanted = np.array(data.draw(st.lists(st.integers(0, len(rows) - 1), max_size=9)), int)
    together = rows.gather(wanted)
    for name, values in rows.gather(np.arange(len(rows))).items():
        np.testing.assert_array_equal(together[name], values[wanted])


def test_nothing_is_predicted_across_two_streams_of_ids():
    stream = token_stream([Tokens(np.array([1, 2, 3])), Tokens(np.array([4])), Tokens(np.array([5, 6]))])
    for rows in (Windows(stream, 5, tail=True), Packed(stream, 5)):
        batch = rows.gather(np.arange(len(rows)))
        real = batch["weights"] == 1
        pairs = zip(batch["tokens"][real], batch["targets"][real], strict=True)
        assert [(int(a), int(b)) for a, b in pairs] == [(1, 2), (2, 3), (5, 6)]


def test_batches_do_not_share_memory_with_the_stream():
    ids = np.arange(50, dtype=np.int32)  # devices may keep a batch's buffer: it must belong to nobody else
    for rows in (Windows(token_stream([Tokens(ids)]), 7, tail=False), Packed(token_stream([Tokens(ids)]), 7)):
        first, second = rows.gather(np.arange(3)), rows.gather(np.arange(3))
        for name in first:
            assert not np.shares_memory(first[name], ids) and not np.shares_memory(first[name], second[name])
            assert first[name].flags.c_contiguous


def test_a_document_that_cannot_be_encoded_is_named():
    with pytest.raises(DataError, match=r"here\.txt: byte 1 is NUL"):
        text_stream([Text("fine", "there.txt"), Text("a\0", "here.txt")], Bytes())


def test_a_pair_without_a_conversion_is_a_dataset_that_the_loss_cannot_read():
    class Pairs: ...

    with pytest.raises(ConfigError, match=r"cannot read: it yields Pairs.*TokenBatch.*Text or .*Tokens"):
        conversion(Pairs, TokenBatch)
    with pytest.raises(ConfigError, match="nothing that is known"):
        conversion(Text, Pairs)
