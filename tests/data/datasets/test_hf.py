"""Datasets through the library `datasets`, of local files: nothing here asks the network."""

import json
import socket
import sys
import tracemalloc

import numpy as np
import pytest

from lmlab.contracts import LabelledText, Text, TextPair
from lmlab.data import open_data
from lmlab.data.datasets.hf import HfLabelled, HfPairs, HfText
from lmlab.data.tokenizers.plain import Bytes
from lmlab.errors import ConfigError, DataError

library = pytest.importorskip("datasets", reason="the extra hf is not installed")

ROWS = [{"text": f"naïve text {n}", "label": n % 3, "t": {"en": f"en {n}", "de": f"de {n}"}} for n in range(101)]
FEATURES = library.Features(
    text=library.Value("string"),
    label=library.ClassLabel(names=["world", "sports", "business"]),
    t={"en": library.Value("string"), "de": library.Value("string")},
)


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """Files of 101 rows in three formats; no connection can be made, and the cache is a new one."""

    def refuse(*args, **kwargs):
        raise AssertionError("a test asked the network")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(library.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    monkeypatch.chdir(tmp_path)
    library.disable_progress_bars()
    table = library.Dataset.from_list(ROWS, features=FEATURES)
    table.to_parquet("rows.parquet")
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    table.save_to_disk("saved")
    (tmp_path / "rows.arrow").write_bytes(next((tmp_path / "saved").glob("*.arrow")).read_bytes())
    return tmp_path


WHOLE = {"valid_share": 0.0, "test_share": 0.0}
FORMATS = {"json": "rows.jsonl", "parquet": "rows.parquet", "arrow": "rows.arrow"}
WAYS = [{}, {"streaming": True, "take": 1_000}]


@pytest.mark.parametrize("way", WAYS, ids=["mapped", "streamed"])
@pytest.mark.parametrize("kind", FORMATS)
def test_the_rows_of_every_format_are_those_that_were_written(folder, kind, way):
    texts = HfText(kind, train_files=FORMATS[kind], **WHOLE, **way).split("train")
    assert [found.text for found in texts] == [row["text"] for row in ROWS] and isinstance(texts[0], Text)
    named = ["world", "sports", "business"] if kind != "json" else ["0", "1", "2"]  # JSON has no classes
    labelled = HfLabelled(kind, train_files=FORMATS[kind], **WHOLE, **way)
    expected = [(row["text"], named[row["label"]]) for row in ROWS]
    assert [(found.text, found.label) for found in labelled.split("train")] == expected
    assert labelled.labels == tuple(sorted(named)) and isinstance(labelled.split("train")[-1], LabelledText)
    pairs = HfPairs(kind, train_files=FORMATS[kind], text="t.en", target="t.de", **WHOLE, **way).split("train")
    assert [(found.text, found.target) for found in pairs] == [(row["t"]["en"], row["t"]["de"]) for row in ROWS]
    assert isinstance(pairs[5], TextPair) and pairs[5].source.endswith("row 5")


@pytest.mark.parametrize("way", WAYS, ids=["mapped", "streamed"])
def test_examples_are_a_sequence_with_places_and_slices(folder, way):
    examples = HfText("parquet", train_files="rows.parquet", **WHOLE, **way).split("train")
    listed = list(examples)
    assert len(examples) == 101 == len(listed)
    assert examples[7] == listed[7] and examples[-1] == listed[-1] and examples[np.int64(3)] == listed[3]
    assert list(examples[3:50:7]) == listed[3:50:7] and list(examples[:0]) == []
    for place in (101, -102):
        with pytest.raises(IndexError):
            examples[place]


def test_mapped_examples_are_not_in_memory(folder):
    library.Dataset.from_dict({"text": [f"{n} " + "x" * 1_000 for n in range(20_000)]}).save_to_disk("large")
    tracemalloc.start()
    examples = HfText("large", valid=None, test=None, **WHOLE).split("train")
    held, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert len(examples) == 20_000 and held < 2_000_000, f"{held} bytes for 20 MB of text"


@pytest.mark.parametrize("way", WAYS, ids=["mapped", "streamed"])
def test_shares_are_disjoint_and_the_same_for_streamed_rows(folder, way):
    dataset = HfText("json", train_files="rows.jsonl", valid_share=0.2, test_share=0.2, **way)
    splits = [{found.text for found in dataset.split(name)} for name in ("train", "valid", "test")]
    assert sum(map(len, splits)) == 101 == len(set().union(*splits)) and all(len(found) > 8 for found in splits)
    other = HfText("parquet", train_files="rows.parquet", valid_share=0.2, test_share=0.2)
    assert dataset.fingerprint() == other.fingerprint()


def test_batches_of_streamed_rows_are_those_of_mapped_ones(folder):
    batches = []
    for way in WAYS:
        dataset = HfText("parquet", train_files="rows.parquet", **WHOLE, **way)
        data = open_data(dataset, Bytes(), seq_len=13, global_batch_size=5, seed=3)
        batches.append([data.train.batch(k)["tokens"] for k in (11, 0, 11)])
    np.testing.assert_array_equal(batches[0], batches[1])
    np.testing.assert_array_equal(batches[0][0], batches[0][2])


@pytest.mark.parametrize("way", [{}, {"streaming": True}], ids=["mapped", "streamed"])
def test_no_more_than_the_first_rows_are_taken(folder, way):
    (folder / "rest.jsonl").write_text('{"text": "the last good one"}\nno JSON\n')
    dataset = HfText("json", train_files="rows.jsonl", take=17, **WHOLE, **way)
    assert [found.text for found in dataset.split("train")] == [row["text"] for row in ROWS[:17]]


def test_streaming_without_an_end_is_refused(folder):
    with pytest.raises(ConfigError, match=r"hf_text\.streaming: set hf_text\.take"):
        HfText("json", train_files="rows.jsonl", streaming=True).split("train")


def test_splits_have_the_names_that_the_dataset_gives_them(folder):
    parts = {"train": ROWS[:60], "dev": ROWS[60:80], "test": ROWS[80:]}
    saved = library.DatasetDict(
        {name: library.Dataset.from_list(rows, features=FEATURES) for name, rows in parts.items()}
    )
    saved.save_to_disk("several")
    dataset = HfLabelled("several", valid="dev")
    assert [len(dataset.split(name)) for name in ("train", "valid", "test")] == [60, 20, 21]
    assert dataset.split("valid")[0].source == "several, split dev, row 0"
    unnamed = HfLabelled("several")
    assert len(unnamed.split("train")) == 60
    with pytest.raises(DataError, match=r"split 'valid'.*calls its splits train, dev, test: name one of them by"):
        unnamed.split("valid")
    with pytest.raises(DataError, match="several has no split 'training'; there is: train, dev, test"):
        HfLabelled("several", train="training").split("train")


@pytest.mark.parametrize("way", WAYS, ids=["mapped", "streamed"])
def test_a_saved_table_of_one_split_is_the_training_split(folder, way):
    dataset = HfLabelled("saved", valid=None, test=None, **way)
    assert sum(len(dataset.split(name)) for name in ("train", "valid", "test")) == 101


def test_files_of_their_own_make_splits(folder):
    (folder / "dev.jsonl").write_text('{"text": "x", "label": 1, "t": {"en": "a", "de": "b"}}\n')
    dataset = HfText("json", train_files="rows.json*", valid_files="dev.jsonl", test_share=0.0)
    assert len(dataset.split("train")) == 101 and [found.text for found in dataset.split("valid")] == ["x"]


def test_empty_texts_are_left_out_and_counted(folder):
    (folder / "wiki.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in ("", " = Title = \n", "")))
    dataset = HfText("json", train_files="wiki.jsonl", **WHOLE)
    assert [found.text for found in dataset.split("train")] == [" = Title = \n"] and dataset.notes == {"empty": 2.0}


def test_rows_without_a_label_or_text_are_named_or_dropped_and_counted(folder):
    rows = [*ROWS[:3], {**ROWS[3], "label": -1}, {**ROWS[4], "text": None}]
    library.Dataset.from_list(rows, features=FEATURES).save_to_disk("secret")
    with pytest.raises(DataError, match=r"^secret, split train, row 3: no label: the class -1 has no name\."):
        HfLabelled("secret", valid=None, test=None, **WHOLE).split("train")
    dataset = HfLabelled("secret", valid=None, test=None, malformed="drop", **WHOLE)
    assert len(dataset.split("train")) == 3 and dataset.notes == {"malformed": 2.0}


@pytest.mark.parametrize("way", WAYS, ids=["mapped", "streamed"])
def test_what_cannot_be_loaded_is_one_line(folder, way):
    (folder / "bad.jsonl").write_text('{"text": "a"}\n{"text": \n')
    (folder / "bad.parquet").write_bytes(b"PAR1 and no more")
    cases = [
        (HfText("json", train_files="bad.jsonl", **way), "bad|JSON"),
        (HfText("parquet", train_files="bad.parquet", **way), "arquet"),
        (HfText("parquet", train_files="gone.parquet", **way), r"hf_text\.train_files: 'gone\.parquet': no such file"),
        (
            HfText("parquet", train_files="rows.parquet", text="body", **way),
            "no column 'body'; there is: text, label, t",
        ),
        (HfText("no/such-dataset", **way), "cannot be loaded"),
    ]
    for dataset, message in cases:
        with pytest.raises(DataError, match=message) as caught:
            dataset.split("train")
        assert "\n" not in str(caught.value)


def test_without_the_library_one_line_says_how_to_get_it(folder, monkeypatch):
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(ConfigError, match=r"^hf_text needs datasets: pip install 'lmlab\[hf\]'$"):
        HfText("json", train_files="rows.jsonl").split("train")


def test_many_rows_are_read_across_the_edges_of_batches(folder):
    library.Dataset.from_dict({"text": [f"{n} {n % 7}" for n in range(3_001)]}).save_to_disk("many")
    examples = HfText("many", valid=None, test=None, valid_share=0.5, test_share=0.0).split("train")
    rows = [int(found.text.split()[0]) for found in examples]
    assert rows == sorted(rows) and 1_300 < len(rows) < 1_700
    for place in (0, 999, 1_000, 1_299):
        assert examples[place].text == f"{rows[place]} {rows[place] % 7}"
