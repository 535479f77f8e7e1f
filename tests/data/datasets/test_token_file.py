"""Files of ids: mapped, not copied; checked before they are used."""

import numpy as np
import pytest

from lmlab.data import open_data
from lmlab.data.datasets import token_file
from lmlab.data.datasets.token_file import TokenFile
from lmlab.errors import DataError


@pytest.fixture
def ids(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    values = np.random.default_rng(0).integers(0, 300, 1_003).astype(np.uint16)
    np.save("ids.npy", values)
    values.astype("<u2").tofile("ids.bin")
    return values


@pytest.mark.parametrize("file", [{"path": "ids.npy"}, {"path": "ids.bin", "dtype": "uint16"}])
def test_splits_are_parts_of_the_stream_in_order(ids, file):
    dataset = TokenFile(vocab=300, valid_share=0.1, test_share=0.2, **file)
    parts = [dataset.split(name)[0].ids for name in ("train", "valid", "test")]
    np.testing.assert_array_equal(np.concatenate(parts), ids)
    assert [len(part) for part in parts] == [702, 100, 201]


def test_nothing_but_the_rows_of_a_batch_is_copied(ids):
    data = open_data(TokenFile("ids.npy", 300), None, seq_len=7, global_batch_size=5)
    stream = data.train._gather.__self__.ids
    while not isinstance(stream, np.memmap):
        assert not stream.flags.owndata
        stream = stream.base
    batch = data.train.batch(0)
    for row, tokens in zip(data.train.rows_of(0), batch["tokens"], strict=True):
        np.testing.assert_array_equal(tokens, ids[row * 7 : row * 7 + 7])


def test_splits_can_have_files_of_their_own(ids):
    np.save("valid.npy", ids[:50])
    dataset = TokenFile("ids.npy", 300, valid="valid.npy", test_share=0.0)
    assert len(dataset.split("train")[0].ids) == 1_003 and len(dataset.split("valid")[0].ids) == 50
    with pytest.raises(DataError, match="no ids in the split 'test'"):
        dataset.split("test")


def test_the_fingerprint_sees_every_id_and_the_edges_of_the_splits(ids):
    before = TokenFile("ids.npy", 300).fingerprint()
    assert TokenFile("ids.npy", 300).fingerprint() == before
    assert TokenFile("ids.npy", 300, valid_share=0.1).fingerprint() != before
    ids[777] ^= 1
    np.save("ids.npy", ids)
    assert TokenFile("ids.npy", 300).fingerprint() != before


@pytest.mark.parametrize("chunk", [64, 1 << 24])
@pytest.mark.parametrize("value", [300, -1])
def test_an_id_outside_the_vocabulary_is_named_with_its_place(ids, monkeypatch, chunk, value):
    monkeypatch.setattr(token_file, "_CHUNK", chunk)
    signed = ids.astype(np.int32)
    signed[517] = value
    np.save("bad.npy", signed)
    with pytest.raises(DataError, match=rf"bad\.npy: id {value} at place 517 is outside the vocabulary of 300"):
        TokenFile("bad.npy", 300).split("train")


def test_files_that_hold_no_stream_of_ids_are_refused(ids, tmp_path):
    whole = (tmp_path / "ids.npy").read_bytes()
    (tmp_path / "cut.npy").write_bytes(whole[:-7])
    (tmp_path / "odd.bin").write_bytes(b"\1\0\2")
    (tmp_path / "empty.bin").write_bytes(b"")
    np.save("floats.npy", np.zeros(9))
    np.save("table.npy", np.zeros((3, 3), int))
    np.save("objects.npy", np.array([{}], object))
    cases = {
        "gone.npy": ({}, "no such file"),
        "cut.npy": ({}, "not a whole .npy file"),
        "objects.npy": ({}, "not a whole .npy file"),
        "floats.npy": ({}, "1-d integer array, not float64"),
        "table.npy": ({}, r"of shape \(3, 3\)"),
        "ids.npy": ({"dtype": "int32"}, "holds uint16, not int32"),
        "ids.bin": ({}, "set token_file.dtype"),
        "odd.bin": ({"dtype": "uint16"}, "3 bytes are not a whole number of uint16"),
        "empty.bin": ({"dtype": "uint8"}, "0 bytes are not a whole number"),
    }
    for path, (settings, message) in cases.items():
        with pytest.raises(DataError, match=message):
            TokenFile(path, 300, **settings).split("train")
    with pytest.raises(DataError, match="no split 'dev'"):
        TokenFile("ids.npy", 300).split("dev")
    with pytest.raises(DataError, match="leave nothing to train on"):
        TokenFile("ids.npy", 300, valid_share=1.0).split("train")


def test_specials_are_the_last_ids_and_not_in_the_file(ids):
    dataset = TokenFile("ids.npy", 303, specials=("mask", "begin"))
    assert dataset.special_ids == {"mask": 301, "begin": 302}
    np.testing.assert_array_equal(dataset.split("train")[0].ids, TokenFile("ids.npy", 300).split("train")[0].ids)
    with pytest.raises(DataError, match=r"outside the vocabulary of 298.*room for token_file\.specials"):
        TokenFile("ids.npy", 300, specials=("mask", "begin")).split("train")
