"""Tables row by row: what the csv module, json and pyarrow wrote comes back, and what is malformed is named."""

import csv
import gzip
import io
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lmlab.data.files import LeftOut
from lmlab.data.tables import Table
from lmlab.errors import DataError

# Text that UTF-8 can hold, with the characters that mean something in CSV more often than others.
FIELDS = st.text(st.one_of(st.sampled_from(',;"\t\r\n \u2028é'), st.characters(exclude_categories=["Cs"])), max_size=9)


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def rows(file, *wanted, left_out=None, **settings):
    return list(Table("a_table", **settings).rows(file, wanted, left_out or LeftOut("a_table")))


def refused(file, *wanted, **settings):
    with pytest.raises(DataError) as caught:
        rows(file, *wanted, **settings)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@given(
    table=st.lists(st.lists(FIELDS, min_size=3, max_size=3), min_size=1, max_size=5), delimiter=st.sampled_from(",;\t")
)
def test_what_is_written_as_csv_is_read_as_it_was(tmp_path_factory, table, delimiter):
    file = tmp_path_factory.mktemp("csv") / "a.csv"
    with file.open("w", newline="", encoding="utf-8") as opened:
        csv.writer(opened, delimiter=delimiter, quoting=csv.QUOTE_ALL).writerows([["x", "y", "z"], *table])
    found = rows(str(file), "z", "x", delimiter=delimiter)
    assert [list(values) for _, values in found] == [[z, x] for x, _, z in table]


def test_a_row_is_named_by_its_first_line_also_behind_quoted_line_breaks(folder):
    (folder / "a.csv").write_text('text,label\n"one\n\ntwo",a\n\nthree,b\n')
    assert rows("a.csv", "text") == [("a.csv:2", ["one\n\ntwo"]), ("a.csv:6", ["three"])]


def test_a_field_may_be_longer_than_the_csv_module_allows_by_itself(folder):
    before = csv.field_size_limit()
    (folder / "a.csv").write_text("text\n" + "x" * 200_000 + "\n")
    assert len(rows("a.csv", "text")[0][1][0]) == 200_000 and csv.field_size_limit() == before


def test_quotes_in_tsv_are_characters(folder):
    (folder / "a.tsv").write_text('"Hi\t"\nsaid\the"\r\n')
    assert rows("a.tsv", 0, 1) == [("a.tsv:1", ['"Hi', '"']), ("a.tsv:2", ["said", 'he"'])]


def test_columns_are_named_or_counted_and_the_first_line_is_data_where_they_are_counted(folder):
    (folder / "a.csv").write_text("x,y\n1,2\n")
    assert [values for _, values in rows("a.csv", "y")] == [["2"]]
    assert [values for _, values in rows("a.csv", -1)] == [["y"], ["2"]]
    assert [values for _, values in rows("a.csv", -1, header=True)] == [["2"]]
    assert "a.csv:1: no column 'z'; there is: x, y" in refused("a.csv", "z")
    assert "a.csv:1: no column 2: there are 2" in refused("a.csv", 2)
    assert "set a_table.header = True" in refused("a.csv", "y", header=False)


def test_a_byte_order_mark_is_no_part_of_the_first_name(folder):
    (folder / "a.csv").write_bytes("\ufefftext,label\né,1\n".encode())
    assert rows("a.csv", "text") == [("a.csv:2", ["é"])]


def test_json_lines_have_members_nested_members_and_places(folder):
    (folder / "a.jsonl.gz").write_bytes(gzip.compress(b'{"t": {"en": "a", "de": "b"}, "x.y": 3}\n\n["c", "d"]\n'))
    left_out = LeftOut("a_table", "drop")
    assert rows("a.jsonl.gz", "t.en", "x.y", left_out=left_out) == [("a.jsonl.gz:1", ["a", 3])]
    assert rows("a.jsonl.gz", 1, left_out=left_out) == [("a.jsonl.gz:3", ["d"])]
    assert left_out.notes == {"malformed": 2.0}


def test_parquet_rows_are_what_pyarrow_wrote(folder):
    arrow, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    written = [{"text": f"naïve {n}", "n": n, "t": {"en": f"e{n}", "de": None}} for n in range(9_001)]
    parquet.write_table(arrow.Table.from_pylist(written), "a.parquet", row_group_size=1_000)
    found = rows("a.parquet", "n", "t.en", 0)
    assert found[0] == ("a.parquet:1", [0, "e0", "naïve 0"]) and found[-1][0] == "a.parquet:9001"
    assert [values for _, values in found] == [[row["n"], row["t"]["en"], row["text"]] for row in written]
    assert "a.parquet: no column 'body'; there is: text, n, t" in refused("a.parquet", "body")
    whole = (folder / "a.parquet").read_bytes()
    (folder / "cut.parquet").write_bytes(whole[:-20])
    assert "cut.parquet: not a whole Parquet file" in refused("cut.parquet", "text")
    (folder / "bad.parquet").write_bytes(whole[:100] + bytes(2000) + whole[2100:])
    assert "bad.parquet: not a whole Parquet file" in refused("bad.parquet", "text")


def test_without_pyarrow_one_line_says_how_to_get_it(folder, monkeypatch):
    import sys

    from lmlab.errors import ConfigError

    (folder / "a.parquet").write_bytes(b"")
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(ConfigError, match=r"^a\.parquet needs pyarrow: pip install 'lmlab\[parquet\]'$"):
        rows("a.parquet", "text")


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.csv", b"x,y\n1,2\n1,2,3\n", "a.csv:3: 3 columns, where the first line has 2."),
        ("a.tsv", b"x\ty\n1\n", "a.tsv:2: 1 columns, where the first line has 2."),
        ("a.tsv", b"x\ty\n1\t2\ncaf\xe9\t2\n", "a.tsv:3: byte 0xe9 is not UTF-8."),
        ("a.csv", b'x,y\n"caf\xe9",2\n', "a.csv:2: byte 0xe9 is not UTF-8."),
        ("a.jsonl", b'{"x": "1"}\n{"x": \n', "a.jsonl:2: not JSON: Expecting value at character 7."),
        ("a.jsonl", b'{"x": "1"}\n{"y": "2"}\n', "a.jsonl:2: no column 'x'; there is: y."),
        ("a.jsonl", b'{"x": "1"}\n3\n', "a.jsonl:2: no column 'x'; there is: int."),
        ("a.jsonl", b'{"x": "caf\xe9"}\n', "a.jsonl:1: byte 0xe9 is not UTF-8."),
    ],
)
def test_a_malformed_row_is_named_or_dropped_and_counted(folder, name, content, message):
    (folder / name).write_bytes(content)
    said = refused(name, "x")
    assert said.startswith(message) and "a_table.malformed = 'drop'" in said
    left_out = LeftOut("a_table", "drop")
    kept = rows(name, "x", left_out=left_out)
    assert left_out.notes == {"malformed": 1.0} and len(kept) == len(content.splitlines()) - 1 - (name[2:] != "jsonl")


def test_a_quote_that_is_not_closed_is_refused_whatever_is_asked(folder):
    (folder / "a.csv").write_text('x,y\n1,2\n"3,4\n5,6\n')
    assert "a.csv:3: not CSV: unexpected end of data" in refused("a.csv", "x")
    with pytest.raises(DataError, match=r"a\.csv:3"):
        rows("a.csv", "x", left_out=LeftOut("a_table", "drop"))


def test_a_name_that_says_no_format_is_refused_unless_the_format_is_given(folder):
    (folder / "a.data").write_text("1,2\n")
    assert "a.data: its name does not say how it is written" in refused("a.data", 0)
    assert rows("a.data", 0, format="csv") == [("a.data:1", ["1"])]


def test_the_columns_of_every_format_are_the_same_rows(folder):
    written = [("a,\u2028b", "1"), ("c d", "2")]
    text = io.StringIO(newline="")
    csv.writer(text).writerows([("x", "y"), *written])
    (folder / "a.csv").write_text(text.getvalue(), newline="")
    (folder / "a.tsv").write_text("".join(f"{x}\t{y}\n" for x, y in [("x", "y"), *written]))
    (folder / "a.jsonl").write_text("".join(json.dumps({"x": x, "y": y}) + "\n" for x, y in written))
    for name in ("a.csv", "a.tsv", "a.jsonl"):
        assert [tuple(values) for _, values in rows(name, "x", "y")] == written
