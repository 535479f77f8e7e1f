"""Ids in a file, memory-mapped: nothing is copied but the rows of a batch."""

from __future__ import annotations

import functools
import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np

from lmlab.contracts import Tokens
from lmlab.errors import DataError
from lmlab.examples import last_ids
from lmlab.ranges import Count, ProperFraction
from lmlab.registry import datasets

_CHUNK = 1 << 24  # ids checked at a time


@datasets.register("token_file")
@dataclass(frozen=True)
class TokenFile:
    """One stream of ids in a `.npy` file, or in a file of nothing but numbers.

    Splits without a file of their own are the end of the stream: first valid, then test.

    Args:
      path: the file; `.npy` holds a 1-d integer array.
      vocab: number of ids, V, those of `specials` included; every id is checked when the file is opened.
      dtype: the numbers' type in a raw file (little-endian); `auto` for `.npy`.
      valid: a file with the validation split (None: `valid_share` of the stream).
      test: a file with the test split (None: `test_share` of the stream).
      valid_share: part of the stream that becomes the validation split.
      test_share: part of the stream that becomes the test split.
      specials: roles of the last ids, such as `mask`, which the file does not hold.
    """

    example: ClassVar[type] = Tokens
    TINY: ClassVar[str] = "token_file.path = '{folder}/tokens.npy'\ntoken_file.vocab = 11"

    path: str
    vocab: Count
    dtype: Literal["auto", "uint8", "uint16", "uint32", "int32", "int64"] = "auto"
    valid: str | None = None
    test: str | None = None
    valid_share: ProperFraction = 0.05
    test_share: ProperFraction = 0.05
    specials: tuple[str, ...] = ()

    @property
    def special_ids(self) -> dict[str, int]:
        """The last ids, by role."""
        return last_ids(self.vocab, self.specials)

    def split(self, name: str) -> tuple[Tokens, ...]:
        """The ids of a split, as one stream; DataError where there are none."""
        file, begin, end = self._place(name)
        ids = self._checked[file][0][begin:end]
        if not len(ids):
            raise DataError(
                f"{file}: no ids in the split '{name}'. Give it a file of its own (token_file.{name}), "
                f"or a larger share of this one (token_file.{name}_share)."
            )
        return (Tokens(ids, file),)

    def fingerprint(self) -> dict[str, Any]:
        """Number and sha256 of the ids of every file, and where the splits are; not where the files lie."""
        return {
            "vocab": self.vocab,
            **{split: self._facts(split) for split in ("train", "valid", "test")},
        }

    def _facts(self, split: str) -> dict[str, Any]:
        file, begin, end = self._place(split)
        ids, sha256 = self._checked[file]
        return {"begin": begin, "end": end, "ids": len(ids), "dtype": str(ids.dtype), "sha256": sha256}

    def _place(self, name: str) -> tuple[str, int, int]:
        """File, first id and end of a split."""
        own = {"valid": self.valid, "test": self.test}.get(name)
        if own is not None:
            return own, 0, len(self._checked[own][0])
        valid = 0.0 if self.valid else self.valid_share
        test = 0.0 if self.test else self.test_share
        if valid < 0 or test < 0 or valid + test >= 1:
            raise DataError(f"token_file: shares of {valid} and {test} leave nothing to train on.")
        total = len(self._checked[self.path][0])
        edges = [0, round(total * (1 - valid - test)), round(total * (1 - test)), total]
        if name not in ("train", "valid", "test"):
            raise DataError(f"{self.path}: no split '{name}'; there are train, valid and test.")
        at = ("train", "valid", "test").index(name)
        return self.path, edges[at], edges[at + 1]

    @functools.cached_property
    def _checked(self) -> dict[str, tuple[np.ndarray, str]]:
        files = dict.fromkeys((self.path, self.valid, self.test))
        return {file: _check(file, self.dtype, self.vocab - len(self.specials)) for file in files if file is not None}


def _check(file: str, dtype: str, vocab: int) -> tuple[np.ndarray, str]:
    """The memory map of a file and the sha256 of its ids; one pass over it, in chunks."""
    ids = _map(file, dtype)
    found = hashlib.sha256(f"{ids.dtype.str} {len(ids)}".encode())
    for begin in range(0, len(ids), _CHUNK):
        chunk = np.ascontiguousarray(ids[begin : begin + _CHUNK])
        low, high = int(chunk.min()), int(chunk.max())
        if low < 0 or high >= vocab:
            place = int(np.argmax((chunk < 0) | (chunk >= vocab)))
            raise DataError(
                f"{file}: id {chunk[place]} at place {begin + place} is outside the vocabulary of {vocab}. "
                "Set token_file.vocab to what the file was made with, and room for token_file.specials."
            )
        found.update(chunk.data)
    return ids, found.hexdigest()


def _map(file: str, dtype: str) -> np.ndarray:
    path = Path(file).expanduser()
    if not path.is_file():
        raise DataError(f"token_file: '{file}': no such file (looked in {Path.cwd()}).")
    if path.suffix == ".npy":
        return _map_npy(path, dtype)
    if dtype == "auto":
        raise DataError(f"{file}: a file without a header: set token_file.dtype to the type of its numbers.")
    kind = np.dtype(dtype).newbyteorder("<")
    size = path.stat().st_size
    if size == 0 or size % kind.itemsize:
        raise DataError(f"{file}: {size} bytes are not a whole number of {dtype} ids: truncated, or another type.")
    return np.memmap(path, kind, "r")


def _map_npy(path: Path, dtype: str) -> np.ndarray:
    try:
        ids = np.load(path, mmap_mode="r")
    except (ValueError, EOFError, OSError) as error:
        raise DataError(f"{path}: not a whole .npy file ({error}).") from error
    if ids.ndim != 1 or ids.dtype.kind not in "iu" or not len(ids):
        raise DataError(f"{path}: ids must be a 1-d integer array, not {ids.dtype} of shape {ids.shape}.")
    if dtype not in ("auto", ids.dtype.name):
        raise DataError(f"{path}: holds {ids.dtype.name}, not {dtype}. Leave token_file.dtype at 'auto'.")
    return ids
