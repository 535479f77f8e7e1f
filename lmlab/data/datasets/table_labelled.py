"""Labelled texts in tables of the user's: CSV, TSV, JSON lines, Parquet."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from lmlab.contracts import LabelledText
from lmlab.data.file_splits import FileSplits
from lmlab.data.files import LeftOut, text_of
from lmlab.data.tables import Column, Format, Table
from lmlab.registry import datasets


@datasets.register("table_labelled")
@dataclass(frozen=True)
class TableLabelled(FileSplits):
    """Texts, or pairs of texts, with a label each: a row of a CSV, TSV, JSON lines or Parquet file.

    Text is UTF-8; CSV, TSV and JSON lines may be compressed (`.gz`, `.bz2`, `.xz`). CSV is quoted as in RFC 4180, in
    TSV a quote is a character as any other. Splits without files of their own are taken out of `train` by the md5 of
    the text (both texts), so that equal texts are on one side whatever their labels.

    A label is a text, an integer or a truth value (`true`, `false`). Malformed is a row with no text or label, with
    more or fewer columns than the first, not UTF-8, or not JSON.

    Args:
      train: paths or globs (`**` is any depth), relative to the working directory.
      valid: the same for the validation split (none: `valid_share` of train).
      test: the same for the test split (none: `test_share` of train).
      valid_share: part of the rows that becomes the validation split.
      test_share: part of the rows that becomes the test split.
      malformed: `refuse` names the first malformed row; `drop` leaves such rows out and counts them.
      text: the column of the text: a name (`a.b` is the member b of a), or a place from 0 on (-1: the last).
      label: the column of the label.
      second: the column of the second text, where examples are pairs.
      format: how the files are written; `auto` goes by their suffixes.
      delimiter: what stands between the fields of a line (None: a comma in CSV, a tab in TSV).
      header: whether the first line of CSV and TSV names the columns (None: it does where a column is named here).
    """

    example: ClassVar[type] = LabelledText
    name: ClassVar[str] = "table_labelled"
    TINY: ClassVar[str] = """
    table_labelled.train = '{folder}/rows.jsonl'
    table_labelled.valid_share = 0.2
    table_labelled.test_share = 0.2
    """

    text: Column = "text"
    label: Column = "label"
    second: Column | None = None
    format: Format = "auto"
    delimiter: str | None = None
    header: bool | None = None

    @functools.cached_property
    def labels(self) -> tuple[str, ...]:
        """The labels of the training split, sorted."""
        return self._corpus.labels

    def _examples_of(self, file: str, left_out: LeftOut) -> Iterator[LabelledText]:
        wanted = [column for column in (self.text, self.label, self.second) if column is not None]
        table = Table(self.name, self.format, self.delimiter, self.header)
        for where, row in table.rows(file, wanted, left_out):
            with left_out.row(where):
                yield labelled(row, where)


def labelled(values: Sequence[Any], where: str) -> LabelledText:
    """An example of a row's text, label and perhaps second text; Malformed where it is none."""
    second = text_of(values[2], "second text") if len(values) > 2 else None
    return LabelledText(text_of(values[0], "text"), label_of(values[1]), second, where)


def label_of(value: Any) -> str:
    """A label as a name; Malformed where it is none."""
    match value:
        case bool():
            return "true" if value else "false"
        case int():
            return str(value)
    return text_of(value, "label")
