"""The dataset `stdlib`: the text that comes with the Python that runs lmlab. Files are read, never executed."""

from __future__ import annotations

import ast
import functools
import platform
import sysconfig
import tokenize
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal

from lmlab.contracts import Text
from lmlab.data.archives import Origin
from lmlab.data.corpus import Corpus, split_of
from lmlab.errors import DataError
from lmlab.registry import datasets

_TESTS = {"test", "tests", "idle_test"}
# Installed by others, or written for one machine (paths, build variables); the topics are read as texts.
_NOT_CPYTHON = {"site-packages", "dist-packages", "__pycache__", "sitecustomize.py", "usercustomize.py"}
_GENERATED = ("_sysconfigdata", "_sysconfig_vars", "config-")
_TOPICS = "pydoc_data/topics.py"
_WAY_OUT = "Use a Python whose standard library is installed as source files, or the dataset text_files."


@datasets.register("stdlib")
@dataclass(frozen=True)
class Stdlib:
    """CPython's own text: the reference manual's topics and the standard library's sources. Nothing to download.

    A document is a topic or a file. Splits by the md5 of its name: 5 % valid, 5 % test.
    It changes with the interpreter; the fingerprint names the version and the contents.

    Args:
      parts: English `topics` (about 0.5 MB), Python `sources` (about 11 MB), or `all`.
      include_tests: sources of tests too (20 MB more).
    """

    example: ClassVar[type] = Text
    origin: ClassVar[Origin] = Origin("the Python that runs lmlab", "PSF-2.0", "about 11 MB")
    TINY: ClassVar[str] = "stdlib.parts = 'topics'"

    parts: Literal["all", "topics", "sources"] = "all"
    include_tests: bool = False

    def split(self, name: str) -> tuple[Text, ...]:
        """The documents of a split, sorted by name."""
        return self._corpus.split(name)

    def fingerprint(self) -> dict[str, Any]:
        """The interpreter's version, and the contents of every split."""
        return {"python": platform.python_version(), **self._corpus.fingerprint()}

    @functools.cached_property
    def _corpus(self) -> Corpus:
        return Corpus.of("stdlib", ((split_of(text.source), text) for text in self._documents()), _WAY_OUT)

    def _documents(self) -> Iterator[Text]:
        root = Path(sysconfig.get_path("stdlib"))
        if self.parts != "sources":
            yield from _topics(root / _TOPICS)
        if self.parts != "topics":
            yield from _sources(root, self.include_tests)


def _topics(file: Path) -> Iterator[Text]:
    """The manual's texts: the literal dict in pydoc_data/topics.py, sorted by topic."""
    if not file.is_file():
        raise DataError(f"stdlib: this Python has no {file}. {_WAY_OUT}")
    for node in ast.parse(file.read_bytes()).body:
        match node:
            case ast.Assign(targets=[ast.Name(id="topics")], value=value):
                for topic, text in sorted(ast.literal_eval(value).items()):
                    yield Text(text, f"topics/{topic}")


def _sources(root: Path, include_tests: bool) -> Iterator[Text]:
    """The library's .py files, sorted by path; a few tests that are no valid Python text by design are left out."""
    names = sorted(file.relative_to(root).as_posix() for file in root.rglob("*.py"))
    wanted = [name for name in names if _is_wanted(name, include_tests)]
    if not wanted:
        raise DataError(f"stdlib: there are no .py files in {root}. {_WAY_OUT}")
    for name in wanted:
        try:
            with tokenize.open(root / name) as file:  # by the file's own coding line (PEP 263)
                yield Text(file.read(), name)
        except (SyntaxError, UnicodeDecodeError):
            if not _TESTS & set(name.split("/")):
                raise DataError(f"stdlib: {root / name} is not text in its own coding. {_WAY_OUT}") from None


def _is_wanted(name: str, include_tests: bool) -> bool:
    parts = name.split("/")
    return not (
        name == _TOPICS
        or _NOT_CPYTHON & set(parts)
        or any(part.startswith(_GENERATED) for part in parts)
        or (not include_tests and _TESTS & set(parts))
    )
