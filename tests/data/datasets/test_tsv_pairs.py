"""Pairs in two columns or in two parallel files."""

import bz2
import gzip

import pytest

from lmlab.contracts import TextPair
from lmlab.data.datasets.tsv_pairs import TsvPairs
from lmlab.errors import DataError

WHOLE = {"valid_share": 0.0, "test_share": 0.0}


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def pairs(dataset, split="train"):
    return [(pair.text, pair.target) for pair in dataset.split(split)]


def test_pairs_are_the_first_two_columns_or_those_that_are_named(folder):
    (folder / "a.tsv").write_text("Hi.\tSalut !\tCC-BY 1\nRun!\tCours !\tCC-BY 2\n")
    assert TsvPairs("a.tsv", **WHOLE).split("train")[0] == TextPair("Hi.", "Salut !", "a.tsv:1")
    (folder / "b.jsonl").write_text('{"id": 1, "translation": {"en": "Hi.", "fr": "Salut !"}}\n')
    assert pairs(TsvPairs("b.jsonl", text="translation.fr", target="translation.en", **WHOLE)) == [("Salut !", "Hi.")]


def test_parallel_files_are_joined_line_by_line(folder):
    (folder / "train.en.gz").write_bytes(gzip.compress(b"one\ntwo\r\nthree"))
    (folder / "train.es.bz2").write_bytes(bz2.compress("uno\ndos\ntrés\n".encode()))
    dataset = TsvPairs("train.en.gz", train_targets="train.es.bz2", **WHOLE)
    assert pairs(dataset) == [("one", "uno"), ("two", "dos"), ("three", "trés")]


def test_a_line_separator_inside_of_a_line_does_not_shift_parallel_files(folder):
    (folder / "a").write_text("one\u2028more\x0band more\ntwo\n")
    (folder / "b").write_text("uno\ndos\n")
    assert pairs(TsvPairs("a", train_targets="b", **WHOLE))[1] == ("two", "dos")


def test_parallel_files_of_different_lengths_are_refused_with_both_counts(folder):
    (folder / "a").write_text("one\ntwo\nthree\n")
    (folder / "b").write_text("uno\ndos\n")
    for malformed in ("refuse", "drop"):
        with pytest.raises(DataError, match="a has 3 lines, but b has 2: they are not parallel"):
            TsvPairs("a", train_targets="b", malformed=malformed, **WHOLE).split("train")
    with pytest.raises(DataError, match="2 files of texts, but 1 of targets"):
        TsvPairs(("a", "b"), train_targets="b", **WHOLE).split("train")


@pytest.mark.parametrize(
    ("texts", "targets", "message"),
    [
        (b"one\n\nthree\n", b"uno\ndos\ntres\n", "a:2: no text."),
        (b"one\ntwo\nthree\n", b"uno\n\ntres\n", "b:2: no target."),
        (b"one\ntwo\nthree\n", b"uno\nd\xf3s\ntres\n", "b:2: byte 0xf3 is not UTF-8."),
    ],
)
def test_a_line_without_its_other_half_is_named_or_dropped_and_counted(folder, texts, targets, message):
    (folder / "a").write_bytes(texts)
    (folder / "b").write_bytes(targets)
    with pytest.raises(DataError) as caught:
        TsvPairs("a", train_targets="b", **WHOLE).split("train")
    assert str(caught.value).startswith(message)
    dataset = TsvPairs("a", train_targets="b", malformed="drop", **WHOLE)
    assert pairs(dataset) == [("one", "uno"), ("three", "tres")] and dataset.notes == {"malformed": 1.0}


def test_a_text_is_in_one_split_with_all_its_targets(folder):
    (folder / "a.tsv").write_text("".join(f"text {n % 100}\ttarget {n}\n" for n in range(400)))
    dataset = TsvPairs("a.tsv", valid_share=0.3, test_share=0.3)
    texts = [{text for text, _ in pairs(dataset, split)} for split in ("train", "valid", "test")]
    assert sum(map(len, texts)) == 100 == len(set().union(*texts)) and all(len(found) > 10 for found in texts)
