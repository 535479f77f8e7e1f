"""Tables of the user's, row by row: CSV, TSV, JSON lines and Parquet, of which a few columns are wanted."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal

from lmlab.data.files import LeftOut, Malformed, check_bytes, json_lines, lines, row_text, suffix_of
from lmlab.data.optional import imported
from lmlab.errors import DataError

Column = str | int
"""A name (`a.b` is the member b of a), or a place from 0 on, -1 being the last."""

Format = Literal["auto", "csv", "tsv", "jsonl", "parquet"]

FORMATS: Mapping[str, Format] = {
    ".csv": "csv", ".tsv": "tsv", ".tab": "tsv", ".jsonl": "jsonl", ".ndjson": "jsonl", ".parquet": "parquet",
}  # fmt: skip

Row = tuple[str, Sequence[Any]]
"""Where a row stands (`file:line`; in Parquet `file:row`, from 1 on), and its wanted columns."""

_ROWS_AT_A_TIME = 4096


@dataclass(frozen=True)
class Table:
    """How files of rows are read.

    In CSV, fields may be quoted as in RFC 4180; in TSV a quote is a character as any other. Blank lines are left out.

    Args:
      dataset: whose files they are, for messages.
      format: `auto` goes by each file's suffix.
      delimiter: what stands between the fields; None: a comma in CSV, a tab in TSV.
      header: whether the first line of CSV and TSV names the columns; None: it does where a wanted one is named.
    """

    dataset: str
    format: Format = "auto"
    delimiter: str | None = None
    header: bool | None = None

    def rows(self, file: str, wanted: Sequence[Column], left_out: LeftOut) -> Iterator[Row]:
        """The wanted columns of every row that is whole.

        Raises:
          DataError: the file cannot be read, its format is not known, or no row has a wanted column.
        """
        found = self._format(file)
        if found == "parquet":
            return _parquet_rows(file, wanted, left_out)
        if found == "jsonl":
            return _json_rows(file, wanted, left_out)
        delimiter = self.delimiter or {"csv": ",", "tsv": "\t"}[found]
        read = _quoted_rows(file, delimiter, left_out) if found == "csv" else _plain_rows(file, delimiter, left_out)
        named = any(isinstance(column, str) for column in wanted) if self.header is None else self.header
        return self._columns(file, read, wanted, named, left_out)

    def _format(self, file: str) -> Format:
        found = FORMATS.get(suffix_of(file)) if self.format == "auto" else self.format
        if found is None:
            raise DataError(
                f"{file}: its name does not say how it is written (known: {', '.join(FORMATS)}). "
                f"Set {self.dataset}.format to csv, tsv, jsonl or parquet."
            )
        return found

    def _columns(
        self, file: str, rows: Iterator[Row], wanted: Sequence[Column], named: bool, left_out: LeftOut
    ) -> Iterator[Row]:
        """The wanted columns of rows of fields, all of which must have as many fields as the first one."""
        first = next(rows, None)
        if first is None:
            return
        where, fields = first
        places = [_place(where, column, fields, named, self.dataset) for column in wanted]
        if not named:
            yield where, [fields[place] for place in places]
        for where, row in rows:
            with left_out.row(where):
                if len(row) != len(fields):
                    raise Malformed(f"{len(row)} columns, where the first line has {len(fields)}.")
                yield where, [row[place] for place in places]


def _place(where: str, column: Column, fields: Sequence[str], named: bool, dataset: str) -> int:
    """The place of a column among the fields of the first line."""
    if isinstance(column, str):
        if not named:
            raise DataError(f"{where}: the column '{column}' is asked for by name: set {dataset}.header = True.")
        if column in fields:
            return fields.index(column)
        there = ", ".join(fields)[:200]
        raise DataError(f"{where}: no column '{column}'; there is: {there}. Name the columns, or give their places.")
    if not -len(fields) <= column < len(fields):
        raise DataError(f"{where}: no column {column}: there are {len(fields)}, counted from 0.")
    return column


def _plain_rows(file: str, delimiter: str, left_out: LeftOut) -> Iterator[Row]:
    for where, line in lines(file):
        if line:
            with left_out.row(where):
                yield where, check_bytes(line).split(delimiter)


def _quoted_rows(file: str, delimiter: str, left_out: LeftOut) -> Iterator[Row]:
    """Rows by the csv module, which cannot go on behind a quote that is not closed: that is refused always."""
    with _long_fields():
        reader = csv.reader(io.StringIO(row_text(file), newline=""), delimiter=delimiter, strict=True)
        before = 0
        try:
            for fields in reader:
                where, before = f"{file}:{before + 1}", reader.line_num
                if fields:
                    with left_out.row(where):
                        yield where, [check_bytes(field) for field in fields]
        except csv.Error as error:
            raise DataError(f"{file}:{before + 1}: not CSV: {error}. Correct its quotes.") from None


@contextmanager
def _long_fields() -> Iterator[None]:
    """Lifts the csv module's limit of 131,072 characters in a field, which documents pass."""
    before = csv.field_size_limit(2**31 - 1)
    try:
        yield
    finally:
        csv.field_size_limit(before)


def _json_rows(file: str, wanted: Sequence[Column], left_out: LeftOut) -> Iterator[Row]:
    """Each line an object of named members, or an array."""
    for where, record in json_lines(file, left_out):
        with left_out.row(where):
            yield where, [member(record, column) for column in wanted]


def member(record: Any, column: Column) -> Any:
    """A column of a JSON object or array, or of what is nested in it; Malformed where it is not there."""
    match record, column:
        case dict(), str() if column in record:
            return record[column]
        case dict(), str() if "." in column and column.split(".", 1)[0] in record:
            outer, inner = column.split(".", 1)
            return member(record[outer], inner)
        case list(), int() if -len(record) <= column < len(record):
            return record[column]
    there = ", ".join(record) if isinstance(record, dict) else type(record).__name__
    raise Malformed(f"no column {column!r}; there is: {there[:200]}.")


def _parquet_rows(file: str, wanted: Sequence[Column], left_out: LeftOut) -> Iterator[Row]:
    """Rows of a Parquet file, of which only the wanted columns are read, a few thousand rows at a time."""
    arrow, parquet = imported("pyarrow", file, "parquet"), imported("pyarrow.parquet", file, "parquet")
    number = 0
    try:
        with parquet.ParquetFile(file) as opened:
            names = [_name(file, column, opened.schema_arrow.names) for column in wanted]
            outer = [name if name in opened.schema_arrow.names else name.split(".", 1)[0] for name in names]
            for batch in opened.iter_batches(_ROWS_AT_A_TIME, columns=list(dict.fromkeys(outer))):
                for record in batch.to_pylist():
                    number += 1
                    with left_out.row(f"{file}:{number}"):
                        yield f"{file}:{number}", [member(record, name) for name in names]
    except (arrow.ArrowException, OSError, UnicodeDecodeError) as error:
        said = " ".join(str(error).split())
        raise DataError(f"{file}: not a whole Parquet file (behind row {number}: {said}).") from None


def _name(file: str, column: Column, names: Sequence[str]) -> str:
    """The name of a column of a Parquet file."""
    if isinstance(column, int) and -len(names) <= column < len(names):
        return names[column]
    if isinstance(column, str) and (column in names or column.split(".", 1)[0] in names):
        return column
    raise DataError(f"{file}: no column {column!r}; there is: {', '.join(names)[:200]}.")
