"""Tables of a TOML file, read key by key: every mistake is one line that names the file and the key."""

from __future__ import annotations

import math
import re
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from lmlab.errors import ConfigError
from lmlab.registry import near_names

NAME = re.compile(r"[a-z][a-z0-9_]*")
"""What papers, runs and claims may be called: names become names of files."""


def read_toml(path: Path) -> Table:
    """The outermost table of a file.

    Raises:
      ConfigError: it cannot be read, or is not TOML.
    """
    try:
        return Table(tomllib.loads(path.read_text(encoding="utf-8")), str(path))
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error.strerror}.") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ConfigError(f"{path} is not TOML: {error}.") from None


class Table:
    """A table of a TOML file, from which every key is taken once; `done` refuses what is left.

    Args:
      items: its content.
      place: the file and the keys that lead here, for messages.
    """

    def __init__(self, items: Mapping[str, Any], place: str) -> None:
        self._left = dict(items)
        self._known: list[str] = []
        self.place = place

    def error(self, key: str, problem: str) -> ConfigError:
        """The error for what is wrong with a key."""
        return ConfigError(f"{self.place}: {key} {problem}.")

    def has(self, key: str) -> bool:
        """Whether a key that was not taken yet is there."""
        self._known.append(key)
        return key in self._left

    def text(self, key: str, default: str | None = None) -> str:
        """A string that is not empty."""
        found = self._take(key, default)
        if not isinstance(found, str) or not (found.strip() or found == default):
            raise self.error(key, f"wants a text, not {found!r}")
        return found.strip()

    def number(self, key: str, default: float | None = None) -> float:
        """A finite number."""
        found = _number(self._take(key, default))
        if found is None or not math.isfinite(found):
            raise self.error(key, "wants a finite number")
        return found

    def band(self, key: str) -> tuple[float, float]:
        """A pair of numbers, the lower one first; either may be infinite."""
        found = self._take(key)
        numbers = [_number(value) for value in found] if isinstance(found, list) else []
        if len(numbers) != 2 or None in numbers or not numbers[0] <= numbers[1]:  # type: ignore[operator]
            raise self.error(key, f"wants [lowest, highest], such as [0.0, 0.05] or [99.0, inf], not {found!r}")
        return numbers[0], numbers[1]  # type: ignore[return-value]

    def texts(self, key: str) -> tuple[str, ...]:
        """A list of strings; none where the key is not there."""
        found = self._take(key, [])
        if not isinstance(found, list) or not all(isinstance(text, str) and text.strip() for text in found):
            raise self.error(key, f"wants a list of texts, not {found!r}")
        return tuple(found)

    def seeds(self, key: str) -> tuple[int, ...]:
        """A list of different seeds; [0] where the key is not there."""
        found = self._take(key, [0])
        good = isinstance(found, list) and all(type(seed) is int and 0 <= seed < 2**32 for seed in found)
        if not good or not found or len(set(found)) < len(found):
            raise self.error(key, f"wants different seeds from 0 to 2^32 - 1, such as [0, 1, 2], not {found!r}")
        return tuple(found)

    def choice(self, key: str, among: tuple[str, ...], default: str) -> str:
        """One of some words."""
        found = self._take(key, default)
        if found not in among:
            near = near_names(found, list(among)) if isinstance(found, str) else ""
            raise self.error(
                key, f"wants one of {', '.join(among)}, not {found!r}.{near}".removesuffix(".").rstrip("?")
            )
        return found

    def table(self, key: str) -> Table:
        """A table inside."""
        return self._inside(key, self._take(key))

    def tables(self, key: str) -> Iterator[tuple[str, Table]]:
        """Named tables inside, `[runs.NAME]`; none where the key is not there."""
        found = self._take(key, {})
        if not isinstance(found, dict):
            raise self.error(key, f"wants tables: [{key}.NAME]")
        for name, value in found.items():
            if not NAME.fullmatch(name):
                raise self.error(f"{key}.{name}", f"is no name: {_NAMES}")
            yield name, self._inside(f"{key}.{name}", value)

    def list_of_tables(self, key: str) -> Iterator[Table]:
        """The tables of a list, `[[claims]]`; none where the key is not there."""
        found = self._take(key, [])
        if not isinstance(found, list):
            raise self.error(key, f"wants a list of tables: [[{key}]]")
        for number, value in enumerate(found, 1):
            yield self._inside(f"{key} {number}", value)

    def name(self, key: str) -> str:
        """A name, which may be that of a file."""
        found = self.text(key)
        if not NAME.fullmatch(found):
            raise self.error(key, f"= {found!r} is no name: {_NAMES}")
        return found

    def done(self) -> None:
        """ConfigError for a key that nobody asked for."""
        for key in self._left:
            near = near_names(key, self._known)
            raise ConfigError(f"{self.place}: there is no key '{key}'.{near}\n  known keys: {', '.join(self._known)}")

    def _take(self, key: str, default: Any = None) -> Any:
        if key not in self._known:
            self._known.append(key)
        found = self._left.pop(key, default)
        if found is None:
            raise self.error(key, "is missing")
        return found

    def _inside(self, key: str, value: Any) -> Table:
        if not isinstance(value, dict):
            raise self.error(key, "wants a table")
        return Table(value, f"{self.place}: {key}")


_NAMES = "names are of small letters, digits and underscores, and begin with a letter"


def _number(value: Any) -> float | None:
    """The number, NaN excluded; None for anything else."""
    return float(value) if type(value) in (int, float) and not math.isnan(value) else None
