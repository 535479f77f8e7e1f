"""Pairs of texts of the user's: two columns of a table, or two files line by line."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

from lmlab.contracts import TextPair
from lmlab.data.file_splits import FileSplits
from lmlab.data.files import LeftOut, Paths, check_bytes, files, lines, text_of
from lmlab.data.tables import Column, Format, Table
from lmlab.errors import DataError
from lmlab.registry import datasets


@datasets.register("tsv_pairs")
@dataclass(frozen=True)
class TsvPairs(FileSplits):
    """Texts and what each is to be turned into: two columns of TSV, CSV, JSON lines or Parquet, or two parallel files.

    Text is UTF-8; all but Parquet may be compressed (`.gz`, `.bz2`, `.xz`). Splits without files of their own are
    taken out of `train` by the md5 of the text, so that a text is on one side with all its targets.

    Malformed is a row with no text or target, with more or fewer columns than the first, not UTF-8, or not JSON; of
    parallel files, a line that is empty in one of them. Parallel files of different lengths are always refused.

    Args:
      train: paths or globs (`**` is any depth), relative to the working directory.
      valid: the same for the validation split (none: `valid_share` of train).
      test: the same for the test split (none: `test_share` of train).
      valid_share: part of the pairs that becomes the validation split.
      test_share: part of the pairs that becomes the test split.
      malformed: `refuse` names the first malformed row; `drop` leaves such rows out and counts them.
      train_targets: the files with the targets of `train`, line by line and file by file; none: a column has them.
      valid_targets: the same for `valid`.
      test_targets: the same for `test`.
      text: the column of the text: a name (`translation.en` is a member of a member), or a place from 0 on.
      target: the column of the target.
      format: how the files are written; `auto` goes by their suffixes.
      delimiter: what stands between the fields of a line (None: a comma in CSV, a tab in TSV).
      header: whether the first line of CSV and TSV names the columns (None: it does where a column is named here).
    """

    example: ClassVar[type] = TextPair
    name: ClassVar[str] = "tsv_pairs"
    TINY: ClassVar[str] = """
    tsv_pairs.train = '{folder}/pairs.tsv'
    tsv_pairs.valid_share = 0.2
    tsv_pairs.test_share = 0.2
    """

    train_targets: Paths = ()
    valid_targets: Paths = ()
    test_targets: Paths = ()
    text: Column = 0
    target: Column = 1
    format: Format = "auto"
    delimiter: str | None = None
    header: bool | None = None

    def _examples(self, split: str, paths: Paths, left_out: LeftOut) -> Iterator[TextPair]:
        targets = {"train": self.train_targets, "valid": self.valid_targets, "test": self.test_targets}[split]
        if not targets:
            yield from super()._examples(split, paths, left_out)
            return
        ours, theirs = files(paths, f"{self.name}.{split}"), files(targets, f"{self.name}.{split}_targets")
        if len(ours) != len(theirs):
            raise DataError(
                f"{self.name}.{split}: {len(ours)} files of texts, but {len(theirs)} of targets. "
                "Name as many of the one as of the other, in the same order."
            )
        for file, other in zip(ours, theirs, strict=True):
            yield from _parallel(file, other, left_out)

    def _examples_of(self, file: str, left_out: LeftOut) -> Iterator[TextPair]:
        table = Table(self.name, self.format, self.delimiter, self.header)
        for where, (text, target) in table.rows(file, (self.text, self.target), left_out):
            with left_out.row(where):
                yield TextPair(text_of(text, "text"), text_of(target, "target"), where)


def _parallel(file: str, other: str, left_out: LeftOut) -> Iterator[TextPair]:
    """Line n of a file with line n of another one."""
    both = list(itertools.zip_longest(lines(file), lines(other)))
    if any(None in pair for pair in both):
        counts = [sum(pair[side] is not None for pair in both) for side in (0, 1)]
        raise DataError(
            f"{file} has {counts[0]} lines, but {other} has {counts[1]}: they are not parallel. "
            "Give files in which line n of the one belongs to line n of the other."
        )
    for (where, text), (there, target) in both:
        with left_out.row(where):
            source = text_of(check_bytes(text), "text")
            with left_out.row(there):
                yield TextPair(source, text_of(check_bytes(target), "target"), where)
