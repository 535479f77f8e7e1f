"""Datasets of the Hugging Face hub, and of files in its formats: texts, labelled texts, pairs of texts."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from lmlab.contracts import LabelledText, Text, TextPair
from lmlab.data.datasets.table_labelled import labelled
from lmlab.data.files import text_of
from lmlab.data.hub import HubSplits
from lmlab.registry import datasets

_TINY = """
    {0}.path = 'json'
    {0}.train_files = '{{folder}}/{1}.jsonl'
    {0}.valid_share = 0.2
    {0}.test_share = 0.2
    {0}.streaming = True
    {0}.take = 41
"""


@datasets.register("hf_text")
@dataclass(frozen=True)
class HfText(HubSplits):
    """Texts through the library `datasets` (extra `hf`): of the hub, saved on disk, or files in a format it reads.

    Each row is a document; those of an empty text, of which `wikitext` has many, are left out and counted (`empty`).
    Examples are made from the library's memory-mapped files when they are asked for; streamed ones are held in memory.

    Example: hf_text.path = 'wikitext' and hf_text.config = 'wikitext-103-raw-v1'.

    Args:
      path: a name on the hub, a folder (of files, or of `save_to_disk`), or a format: json, parquet, csv, arrow, text.
      config: which of the dataset's configurations.
      revision: the commit, tag or branch on the hub.
      train: what the dataset calls its training split.
      valid: the same for the validation split (None: `valid_share` of train, by the md5 of the text).
      test: the same for the test split (None: `test_share` of train).
      train_files: paths, globs or addresses of the files, where `path` is a format.
      valid_files: the same for the validation split (none: `valid_share` of train).
      test_files: the same for the test split (none: `test_share` of train).
      valid_share: part of the rows that becomes the validation split.
      test_share: part of the rows that becomes the test split.
      streaming: read rows as they come, fetching little behind the last one; needs `take`.
      take: only so many first rows of each of the dataset's splits.
      malformed: `refuse` names the first malformed row; `drop` leaves such rows out and counts them.
      text: the column of the text (`a.b` is the member b of a).
    """

    example: ClassVar[type] = Text
    name: ClassVar[str] = "hf_text"
    TINY: ClassVar[str] = _TINY.format(name, "text")

    text: str = "text"

    @property
    def _columns(self) -> tuple[str, ...]:
        return (self.text,)

    @staticmethod
    def _example(values: Sequence[Any], where: str) -> Text | None:
        return Text(text_of(values[0], "text"), where) if values[0] != "" else None


@datasets.register("hf_labelled")
@dataclass(frozen=True)
class HfLabelled(HubSplits):
    """Labelled texts through the library `datasets` (extra `hf`): of the hub, saved on disk, or files in its formats.

    A column of classes (`ClassLabel`) gives the classes' names. Malformed is a row with no text or label, also a
    label of -1, which keeps a test set's labels secret. Examples are made from the library's memory-mapped files when
    they are asked for; streamed ones are held in memory.

    Example: hf_labelled.path = 'glue', hf_labelled.config = 'sst2' and hf_labelled.text = 'sentence'.

    Args:
      path: a name on the hub, a folder (of files, or of `save_to_disk`), or a format: json, parquet, csv, arrow.
      config: which of the dataset's configurations.
      revision: the commit, tag or branch on the hub.
      train: what the dataset calls its training split.
      valid: the same for the validation split (None: `valid_share` of train, by the md5 of the text).
      test: the same for the test split (None: `test_share` of train).
      train_files: paths, globs or addresses of the files, where `path` is a format.
      valid_files: the same for the validation split (none: `valid_share` of train).
      test_files: the same for the test split (none: `test_share` of train).
      valid_share: part of the rows that becomes the validation split.
      test_share: part of the rows that becomes the test split.
      streaming: read rows as they come, fetching little behind the last one; needs `take`.
      take: only so many first rows of each of the dataset's splits.
      malformed: `refuse` names the first malformed row; `drop` leaves such rows out and counts them.
      text: the column of the text (`a.b` is the member b of a).
      label: the column of the label: of classes, texts, integers or truth values.
      second: the column of the second text, where examples are pairs.
    """

    example: ClassVar[type] = LabelledText
    name: ClassVar[str] = "hf_labelled"
    TINY: ClassVar[str] = _TINY.format(name, "rows")

    text: str = "text"
    label: str = "label"
    second: str | None = None

    @functools.cached_property
    def labels(self) -> tuple[str, ...]:
        """The labels of the training split, sorted."""
        return self._corpus.labels

    @property
    def _columns(self) -> tuple[str, ...]:
        return (self.text, self.label) if self.second is None else (self.text, self.label, self.second)

    _example = staticmethod(labelled)


@datasets.register("hf_pairs")
@dataclass(frozen=True)
class HfPairs(HubSplits):
    """Pairs of texts through the library `datasets` (extra `hf`): of the hub, saved on disk, or files in its formats.

    Malformed is a row with no text or target. Examples are made from the library's memory-mapped files when they are
    asked for; streamed ones are held in memory.

    Example: hf_pairs.path = 'wmt14', hf_pairs.config = 'de-en', hf_pairs.text = 'translation.en' and
    hf_pairs.target = 'translation.de'.

    Args:
      path: a name on the hub, a folder (of files, or of `save_to_disk`), or a format: json, parquet, csv, arrow.
      config: which of the dataset's configurations.
      revision: the commit, tag or branch on the hub.
      train: what the dataset calls its training split.
      valid: the same for the validation split (None: `valid_share` of train, by the md5 of the text).
      test: the same for the test split (None: `test_share` of train).
      train_files: paths, globs or addresses of the files, where `path` is a format.
      valid_files: the same for the validation split (none: `valid_share` of train).
      test_files: the same for the test split (none: `test_share` of train).
      valid_share: part of the rows that becomes the validation split.
      test_share: part of the rows that becomes the test split.
      streaming: read rows as they come, fetching little behind the last one; needs `take`.
      take: only so many first rows of each of the dataset's splits.
      malformed: `refuse` names the first malformed row; `drop` leaves such rows out and counts them.
      text: the column of the text (`a.b` is the member b of a).
      target: the column of what it is to be turned into.
    """

    example: ClassVar[type] = TextPair
    name: ClassVar[str] = "hf_pairs"
    TINY: ClassVar[str] = _TINY.format(name, "rows")

    text: str = "text"
    target: str = "target"

    @property
    def _columns(self) -> tuple[str, ...]:
        return (self.text, self.target)

    @staticmethod
    def _example(values: Sequence[Any], where: str) -> TextPair:
        return TextPair(text_of(values[0], "text"), text_of(values[1], "target"), where)
