"""Documents read in pieces are those that the whole text gives."""

import bz2
import gzip
import lzma
import re

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lmlab.data.datasets.text_files import TextFiles
from lmlab.data.reading import documents_of
from lmlab.errors import DataError


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.text(alphabet="ab \t\r\n\N{SNOWMAN}\x0b\x85\u2028", max_size=40))
def test_lines_and_paragraphs_are_those_of_the_whole_text(tmp_path, text):
    path = tmp_path / "a.txt"
    path.write_bytes(text.encode())
    lines = [document.text for document in documents_of(str(path), "line", "text")]
    paragraphs = [document.text for document in documents_of(str(path), "blank_line", "text")]
    assert [line for line in lines if line] == [line for line in text.split("\n") if line]
    whole = [part.strip("\n") for part in re.split(r"\n(?:[ \t\r]*\n)+", text)]
    assert [part for part in paragraphs if part] == [part for part in whole if part]
    assert [document.text for document in documents_of(str(path), "file", "text")] == [text]


@pytest.mark.parametrize("documents", ["file", "line", "blank_line"])
@pytest.mark.parametrize("split_by", ["hash", "position"])
def test_a_stream_is_the_split_one_document_at_a_time(tmp_path, documents, split_by):
    for name in ("a.txt", "b.txt", "c.txt"):
        (tmp_path / name).write_text("".join(f"{name} {i}\n\n" for i in range(200)))
    files = TextFiles(str(tmp_path / "*.txt"), documents=documents, split_by=split_by, valid_share=0.4, test_share=0.3)
    for split in files.fingerprint():
        assert tuple(files.stream(split, 10**6)) == files.split(split)


def test_a_stream_of_a_split_with_files_of_its_own_reads_only_these(tmp_path):
    (tmp_path / "a.txt").write_bytes(b"\xff")
    (tmp_path / "b.txt").write_text("one\n\ntwo")
    files = TextFiles(str(tmp_path / "a.txt"), valid=str(tmp_path / "b.txt"), documents="line")
    assert [document.text for document in files.stream("valid", 100)] == ["one", "two"]


@pytest.mark.parametrize("unit", ["file", "line", "blank_line"])
def test_a_byte_that_is_not_utf8_is_named_by_its_place_in_the_file(tmp_path, unit):
    (tmp_path / "a.txt").write_bytes("é\n\nabc\n".encode() + b"d\xffe")
    with pytest.raises(DataError, match=r"a\.txt: byte 9 \(0xff\) is not UTF-8"):
        list(documents_of(str(tmp_path / "a.txt"), unit, "text"))


@pytest.mark.parametrize("unit", ["file", "line", "blank_line"])
@pytest.mark.parametrize(
    ("suffix", "compress"), [("", bytes), (".gz", gzip.compress), (".bz2", bz2.compress), (".xz", lzma.compress)]
)
def test_a_document_longer_than_allowed_is_refused_with_the_way_out(tmp_path, unit, suffix, compress):
    path = tmp_path / f"a.txt{suffix}"
    path.write_bytes(compress(b"x" * 2000))
    assert [len(document.text) for document in documents_of(str(path), unit, "text", 2000)] == [2000]
    with pytest.raises(DataError, match=r"a document of more than 0\.001999 MB.*--longest-document"):
        list(documents_of(str(path), unit, "text", 1999))


@pytest.mark.parametrize(("suffix", "compress"), [(".txt", bytes), (".gz", gzip.compress), (".xz", lzma.compress)])
def test_a_limit_beyond_all_memory_takes_none(tmp_path, suffix, compress):
    file = tmp_path / f"a{suffix}"
    file.write_bytes(compress(b"one\ntwo\n"))
    for unit, texts in (("file", ["one\ntwo\n"]), ("line", ["one", "two"])):
        assert [document.text for document in documents_of(str(file), unit, "text", 10**16)] == texts
