"""Files of text: read as they are, split without overlap, and one clear line for each that cannot be."""

import bz2
import gzip
import itertools
import json
import lzma

import pytest

from lmlab.data.datasets.text_files import TextFiles
from lmlab.errors import DataError


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def texts(dataset, split="train"):
    return [document.text for document in dataset.split(split)]


WHOLE = {"valid_share": 0.0, "test_share": 0.0}


def test_compressed_files_hold_the_same_text(folder):
    text = "naïve\r\n\N{SNOWMAN} text\n"
    for name, compress in {"a.txt": bytes, "b.gz": gzip.compress, "c.bz2": bz2.compress, "d.xz": lzma.compress}.items():
        (folder / name).write_bytes(compress(text.encode()))
    assert texts(TextFiles(train="*", **WHOLE)) == [text] * 4


def test_globs_are_sorted_and_go_deep(folder):
    for name in ("b/y.txt", "a.txt", "b/c/x.txt"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(name)
    assert texts(TextFiles(train=("**/*.txt",), **WHOLE)) == ["a.txt", "b/c/x.txt", "b/y.txt"]


def test_a_file_with_glob_characters_in_its_name_is_a_file(folder):
    (folder / "a[1].txt").write_text("x")
    assert texts(TextFiles(train="a[1].txt", **WHOLE)) == ["x"]


def test_documents_are_files_lines_or_paragraphs(folder):
    (folder / "a.txt").write_text("one\ntwo\n\n \nthree\n")
    assert texts(TextFiles(train="a.txt", documents="line", **WHOLE)) == ["one", "two", " ", "three"]
    assert texts(TextFiles(train="a.txt", documents="blank_line", **WHOLE)) == ["one\ntwo", "three"]


def test_json_lines_give_a_field(folder):
    lines = [json.dumps({"body": text, "id": 3}) for text in ("a\nb", "\N{SNOWMAN}")]
    (folder / "x.jsonl.gz").write_bytes(gzip.compress("\n\n".join(lines).encode()))
    assert texts(TextFiles(train="x.jsonl.gz", field="body", **WHOLE)) == ["a\nb", "\N{SNOWMAN}"]


def test_hashed_splits_are_disjoint_and_copies_stay_together(folder):
    lines = [f"line {i % 400}" for i in range(800)]
    (folder / "a.txt").write_text("\n".join(lines))
    dataset = TextFiles(train="a.txt", documents="line", valid_share=0.2, test_share=0.1)
    splits = {split: texts(dataset, split) for split in ("train", "valid", "test")}
    assert sorted(itertools.chain(*splits.values())) == sorted(lines)
    assert not set(splits["train"]) & set(splits["valid"]) and not set(splits["valid"]) & set(splits["test"])
    assert 100 < len(splits["valid"]) < 220 and 40 < len(splits["test"]) < 120
    # More documents do not move the ones that were there.
    (folder / "a.txt").write_text("\n".join(lines + [f"new {i}" for i in range(100)]))
    again = TextFiles(train="a.txt", documents="line", valid_share=0.2, test_share=0.1)
    assert set(splits["valid"]) <= set(texts(again, "valid"))


def test_splits_by_position_are_the_text_in_three_parts(folder):
    (folder / "a.txt").write_text("abcdefgh")
    (folder / "b.txt").write_text("ijklmnopqrst")
    dataset = TextFiles(train=("a.txt", "b.txt"), split_by="position", valid_share=0.25, test_share=0.5)
    assert [texts(dataset, split) for split in ("train", "valid", "test")] == [["abcde"], ["fgh", "ij"], ["klmnopqrst"]]


def test_splits_can_have_files_of_their_own(folder):
    for name in ("train", "valid"):
        (folder / name).write_text(f"{name}\n" * 50)
    dataset = TextFiles(train="train", valid="valid", test_share=0.0, documents="line")
    assert set(texts(dataset)) == {"train"} and set(texts(dataset, "valid")) == {"valid"}


def test_the_fingerprint_follows_the_contents_and_not_the_place(folder):
    (folder / "a.txt").write_text("one\ntwo")
    before = TextFiles(train="a.txt", **WHOLE).fingerprint()
    (folder / "a.txt").rename(folder / "b.txt")
    assert TextFiles(train="b.txt", **WHOLE).fingerprint() == before
    assert TextFiles(train="b.txt", documents="line", **WHOLE).fingerprint() != before
    (folder / "b.txt").write_text("one\ntwo!")
    assert TextFiles(train="b.txt", **WHOLE).fingerprint() != before


def refused(dataset, split="train"):
    with pytest.raises(DataError) as caught:
        dataset.split(split)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_a_missing_file_and_a_glob_without_files_are_named(folder):
    assert "text_files.train: 'nope.txt': no such file" in refused(TextFiles(train="nope.txt"))
    assert "text_files.valid: 'no*': no file matches it" in refused(TextFiles(train=(), valid="no*"))


def test_an_empty_corpus_and_an_empty_split_are_named(folder):
    (folder / "a.txt").write_text("")
    assert "text_files: there is no text in it" in refused(TextFiles(train="a.txt"))
    (folder / "a.txt").write_text("text")
    found = refused(TextFiles(train="a.txt", **WHOLE), "valid")
    assert "no documents in the split 'valid'; there is train (1)" in found and "split_by = 'position'" in found


def test_invalid_utf8_is_named_with_file_and_byte(folder):
    (folder / "a.txt").write_bytes(b"caf\xc3\xa9 \xff\n")
    assert "a.txt: byte 6 (0xff) is not UTF-8" in refused(TextFiles(train="a.txt"))


@pytest.mark.parametrize("suffix, compress", [("gz", gzip.compress), ("bz2", bz2.compress), ("xz", lzma.compress)])
def test_truncated_and_damaged_archives_are_named(folder, suffix, compress):
    data = compress(b"some text " * 100)
    (folder / f"a.{suffix}").write_bytes(data[:-9])
    assert f"a.{suffix}: its compressed data is damaged" in refused(TextFiles(train=f"a.{suffix}"))
    (folder / f"a.{suffix}").write_bytes(data[:12] + bytes([data[12] ^ 255]) + data[13:])
    assert f"a.{suffix}: its compressed data is damaged" in refused(TextFiles(train=f"a.{suffix}"))


def test_malformed_json_lines_are_named_with_their_number(folder):
    cases = {
        '{"text": "a"}\n{"text": ': "x.jsonl:2: not JSON",
        '{"text": "a"}\n\n{"body": "b", "id": 1}': "x.jsonl:3: no text in the field 'text'; there is: body, id",
        '{"text": 3}': "x.jsonl:1: no text in the field 'text'",
        "[1]": "x.jsonl:1: no text in the field 'text'; there is: list",
        '{"text": "a\\ud800"}': "x.jsonl:1: character 1 is the lone surrogate",
    }
    for content, message in cases.items():
        (folder / "x.jsonl").write_text(content)
        assert message in refused(TextFiles(train="x.jsonl"))


def test_shares_that_leave_nothing_are_refused(folder):
    (folder / "a.txt").write_text("x")
    assert "leave nothing to train on" in refused(TextFiles(train="a.txt", valid_share=0.6, test_share=0.4))
