"""The manifest of a store, and a finished store opened for reading: every file is checked before it is used."""

from __future__ import annotations

import functools
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from lmlab.config import build, spec_from_json
from lmlab.contracts import Tokenizer
from lmlab.data.archives import sha256_of
from lmlab.data.fingerprints import digest_json
from lmlab.data.prepared.joined import joined
from lmlab.errors import ConfigError, DataError

FORMAT = 1
MANIFEST, UNFINISHED, TOKENIZER = "manifest.json", "unfinished.json", "tokenizer.json"

Holds = Literal["ids", "examples"]


@dataclass(frozen=True)
class Shard:
    """What is in the files of one shard.

    Args:
      documents: how many (examples, in a store of these).
      ids: how many; 0 in a store of examples.
      bytes: of UTF-8 text (of JSON, in a store of examples).
      text_sha256: of the split's documents up to the end of this shard, each preceded by its length.
      files: sha256 by the file's ending.
      sizes: bytes by the file's ending.
    """

    documents: int
    ids: int
    bytes: int
    text_sha256: str
    files: Mapping[str, str]
    sizes: Mapping[str, int]


def shard_path(folder: Path, split: str, number: int, ending: str) -> Path:
    """The path of one file of a shard, such as `train-00000.ids`."""
    return folder / f"{split}-{number:05}.{ending}"


class Store:
    """A finished store.

    Args:
      folder: where it is.

    Attributes:
      manifest: what it says about itself.

    Raises:
      DataError: there is no finished store of a known format.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.manifest = read_manifest(folder)

    @property
    def holds(self) -> Holds:
        """What its shards hold."""
        return self.manifest["holds"]

    @property
    def splits(self) -> tuple[str, ...]:
        """The names of its splits."""
        return tuple(self.manifest["splits"])

    def shards(self, split: str) -> list[Shard]:
        """The shards of a split; DataError where it was not prepared."""
        if split not in self.splits:
            raise DataError(
                f"{self.folder}: no split '{split}' was prepared; there is {', '.join(self.splits)}. "
                "Prepare it anew with --splits."
            )
        return [Shard(**facts) for facts in self.manifest["splits"][split]["shards"]]

    def ids(self, split: str) -> Any:
        """The stream of a split, (n,): a memory map, or several of them joined without a copy."""
        return joined(self._maps(split, "ids", np.dtype(self.manifest["dtype"]).newbyteorder("<")))

    def starts(self, split: str) -> Any:
        """The place of each document's first id in the stream of a split, (documents,), memory-mapped."""
        edges = np.cumsum([0, *(shard.ids for shard in self.shards(split))])[:-1]
        return joined(self._maps(split, "documents", np.dtype("<u8")), edges.tolist())

    def files(self, split: str, ending: str) -> list[Path]:
        """The files of a split with one ending, each with the right size and checksum."""
        found = []
        for number, shard in enumerate(self.shards(split)):
            path = shard_path(self.folder, split, number, ending)
            self._check(path, shard.sizes[ending], shard.files[ending])
            found.append(path)
        return found

    @functools.cached_property
    def tokenizer(self) -> Tokenizer:
        """The tokenizer that it was made with, fitted.

        Raises:
          DataError: its file is missing or changed.
          ConfigError: it comes from a plug-in that is not loaded.
        """
        facts = self.manifest["tokenizer"]
        saved = read_tokenizer(self.folder, facts["sha256"])
        try:
            return build(spec_from_json(self.manifest["configuration"]["tokenizer"])).from_json(saved)
        except ConfigError as error:
            plugins = " ".join(f"--plugin {name}" for name in self.manifest["plugins"])
            if not plugins:
                raise
            raise ConfigError(f"{self.folder} was prepared with plug-ins ({plugins}): {error}") from error

    def fingerprint(self) -> dict[str, Any]:
        """What is in the store, however it is cut into shards and wherever it is."""
        facts = ("documents", "ids", "bytes", "sha256", "text_sha256")
        return {
            "holds": self.holds,
            "tokenizer": self.manifest["tokenizer"],
            "splits": {
                name: {key: split[key] for key in facts} for name, split in self.manifest["splits"].items()
            },
        }  # fmt: skip

    def _maps(self, split: str, ending: str, dtype: np.dtype) -> list[np.ndarray]:
        return [np.memmap(path, dtype, "r") for path in self.files(split, ending)]

    def _check(self, path: Path, size: int, sha256: str) -> None:
        again = "Prepare the store again (lmlab data prepare makes only what is damaged), or copy it again."
        try:
            there = path.stat().st_size
        except OSError as error:
            raise DataError(f"{path}: {error.strerror}. {again}") from error
        if there != size:
            raise DataError(f"{path} has {there} bytes, not {size}: it was cut off or changed. {again}")
        if sha256_of(path) != sha256:
            raise DataError(f"{path} is damaged: its sha256 is not the one in {MANIFEST}. {again}")


def read_manifest(folder: Path, name: str = MANIFEST) -> dict[str, Any]:
    """The manifest of a store; DataError unless it is one of this format."""
    path = folder / name
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise DataError(_absent(folder)) from None
    except OSError as error:
        raise DataError(f"{path}: {error.strerror}.") from error
    except ValueError as error:
        raise DataError(f"{path} is no manifest ({error}). Delete the folder, and prepare it again.") from error
    there = found.get("format") if isinstance(found, dict) else None
    if there != FORMAT:
        raise DataError(f"{path} is of format {there!r}; this lmlab reads {FORMAT}. Prepare the store again.")
    claimed = found.pop("sha256", None)
    if claimed != digest_json(found):
        raise DataError(f"{path} was changed: its own sha256 is not right. Delete the folder, and prepare it again.")
    return found


def manifest_text(manifest: Mapping[str, Any]) -> str:
    """As it is written, with the sha256 of itself."""
    return json.dumps({**manifest, "sha256": digest_json(manifest)}, indent=1) + "\n"


def read_tokenizer(folder: Path, sha256: str) -> dict[str, Any]:
    """The fitted vocabulary; DataError unless it is the one with this checksum."""
    path = folder / TOKENIZER
    try:
        data = path.read_bytes()
    except OSError as error:
        raise DataError(f"{path}: {error.strerror}. Delete the folder, and prepare it again.") from error
    if hashlib.sha256(data).hexdigest() != sha256:
        raise DataError(
            f"{path} is damaged: its sha256 is not the manifest's. Delete the folder, and prepare it again."
        )
    return json.loads(data)


def _absent(folder: Path) -> str:
    if (folder / UNFINISHED).exists():
        return f"{folder} is not finished: run the same 'lmlab data prepare' again, which goes on where it ended."
    makes = f"'lmlab data prepare CONFIG --out {folder}' makes one."
    return f"{folder} holds no prepared corpus ({MANIFEST} is missing). {makes}"
