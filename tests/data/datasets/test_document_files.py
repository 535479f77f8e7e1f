"""Documents of sentences in users' files."""

import gzip

import pytest

from lmlab.contracts import Document
from lmlab.data.datasets.document_files import DocumentFiles
from lmlab.errors import DataError

TEXT = "One.\nTwo words. \n\n\nAlone.\r\n \nLast,\nof all.\n"


def opened(**given):
    return DocumentFiles(train="*.txt*", valid="v/*", test="v/*", **given)


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "v").mkdir()
    (tmp_path / "v" / "one").write_text("Some.\n")
    return tmp_path


def test_empty_lines_stand_between_documents_and_line_breaks_between_sentences(folder):
    (folder / "a.txt").write_bytes(TEXT.encode())
    (folder / "b.txt.gz").write_bytes(gzip.compress(b"Another\nfile."))
    assert opened().split("train") == (
        Document(("One.", "Two words."), "a.txt:1"),
        Document(("Alone.",), "a.txt:5"),
        Document(("Last,", "of all."), "a.txt:7"),
        Document(("Another", "file."), "b.txt.gz:1"),
    )
    assert opened().split("valid") == (Document(("Some.",), "v/one:1"),)


def test_a_line_that_is_not_utf_8_is_named_or_its_document_is_dropped_and_counted(folder):
    (folder / "a.txt").write_bytes(b"Good.\n\nBad\n\xff\xfe\n\nGood too.\n")
    with pytest.raises(DataError, match=r"^a\.txt:4: .*UTF-8.*document_files\.malformed = 'drop'"):
        opened().split("train")
    dataset = opened(malformed="drop")
    assert [document.sentences for document in dataset.split("train")] == [("Good.",), ("Good too.",)]
    assert dataset.notes == {"malformed": 1}


def test_equal_documents_are_on_one_side(folder):
    text = "\n\n".join(f"Document {n % 7}.\nIts second sentence." for n in range(70))
    (folder / "a.txt").write_text(text)
    dataset = DocumentFiles(train="a.txt", valid_share=0.3, test_share=0.2)
    sides = [{document.sentences for document in dataset.split(name)} for name in ("train", "valid", "test")]
    assert len(set().union(*sides)) == sum(map(len, sides)) == 7
