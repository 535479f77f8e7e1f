"""Labelled texts in tables: labels as names, splits without a common text, drops that are counted."""

import json

import pytest

from lmlab.contracts import LabelledText
from lmlab.data.datasets.table_labelled import TableLabelled
from lmlab.errors import DataError

WHOLE = {"valid_share": 0.0, "test_share": 0.0}


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_labels_are_texts_integers_or_truth_values(folder):
    labels = ["good", 10, 9, True]
    (folder / "a.jsonl").write_text("".join(json.dumps({"text": "x", "label": label}) + "\n" for label in labels))
    dataset = TableLabelled("a.jsonl", **WHOLE)
    assert dataset.split("train")[0] == LabelledText("x", "good", None, "a.jsonl:1")
    assert [example.label for example in dataset.split("train")] == ["good", "10", "9", "true"]
    assert dataset.labels == ("10", "9", "good", "true") and dataset.notes == {}


def test_the_labels_are_those_of_the_training_split(folder):
    (folder / "train.tsv").write_text("x\tb\ny\ta\n")
    (folder / "test.tsv").write_text("z\tc\n")
    dataset = TableLabelled("train.tsv", test="test.tsv", text=0, label=1, valid_share=0.0)
    assert dataset.labels == ("a", "b") and dataset.split("test")[0].label == "c"


def test_pairs_have_a_second_text(folder):
    (folder / "a.csv").write_text("premise,hypothesis,label\nIt rains.,It is wet.,entailment\n")
    found = TableLabelled("a.csv", text="premise", second="hypothesis", **WHOLE).split("train")
    assert found == (LabelledText("It rains.", "entailment", "It is wet.", "a.csv:2"),)


def test_equal_texts_are_in_one_split_whatever_their_labels(folder):
    (folder / "a.tsv").write_text("".join(f"text {n % 300}\t{n % 7}\n" for n in range(900)))
    dataset = TableLabelled("a.tsv", text=0, label=1, valid_share=0.2, test_share=0.1)
    splits = {name: dataset.split(name) for name in ("train", "valid", "test")}
    texts = {name: {example.text for example in found} for name, found in splits.items()}
    assert sum(map(len, splits.values())) == 900 and sum(map(len, texts.values())) == 300
    assert 35 < len(texts["valid"]) < 90 and 12 < len(texts["test"]) < 55


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ('{"text": "", "label": "a"}', "a.jsonl:2: no text."),
        ('{"text": "x", "label": ""}', "a.jsonl:2: no label."),
        ('{"text": "x", "label": null}', "a.jsonl:2: no label."),
        ('{"text": "x", "label": 0.5}', "a.jsonl:2: the label is no text but 0.5."),
        ('{"text": ["x"], "label": "a"}', 'a.jsonl:2: the text is no text but ["x"].'),
        ('{"text": "x\\\\ud800", "label": "a"}', "a.jsonl:2: text: character 1 is the lone surrogate U+D800"),
    ],
)
def test_a_row_without_its_parts_is_named_or_dropped_and_counted(folder, row, message):
    (folder / "a.jsonl").write_text('{"text": "x", "label": "a"}\n' + row.replace("\\\\", "\\") + "\n")
    with pytest.raises(DataError) as caught:
        TableLabelled("a.jsonl", **WHOLE).split("train")
    assert str(caught.value).startswith(message) and "table_labelled.malformed = 'drop'" in str(caught.value)
    dataset = TableLabelled("a.jsonl", malformed="drop", **WHOLE)
    assert len(dataset.split("train")) == 1 and dataset.notes == {"malformed": 1.0}
    assert dataset.fingerprint()["left_out"] == {"malformed": 1.0}


def test_the_fingerprint_follows_texts_labels_and_splits_and_not_the_place(folder):
    (folder / "a.tsv").write_text("x\tb\ny\ta\n")
    (folder / "b.csv").write_text("x,b\ny,a\n")
    (folder / "c.csv").write_text("x,b\ny,b\n")
    settings = {"text": 0, "label": 1, **WHOLE}
    prints = [TableLabelled(file, **settings).fingerprint() for file in ("a.tsv", "b.csv", "c.csv")]
    assert prints[0] == prints[1] != prints[2]


def test_shares_that_leave_nothing_and_empty_splits_are_refused(folder):
    (folder / "a.tsv").write_text("x\tb\n")
    with pytest.raises(DataError, match="leave nothing to train on"):
        TableLabelled("a.tsv", text=0, label=1, valid_share=0.6, test_share=0.4).split("train")
    with pytest.raises(DataError, match=r"in the split 'valid'; there is train \(1\)\..*table_labelled\.valid"):
        TableLabelled("a.tsv", text=0, label=1, **WHOLE).split("valid")
