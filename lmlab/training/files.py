"""Writing files so that a reader sees the old content or the new, and failures are named."""

from __future__ import annotations

import errno
import json
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from lmlab.errors import RunFolderError

WAY_OUT = {
    errno.ENOSPC: "The disk is full: free some space, then run the same command again.",
    errno.EDQUOT: "The disk quota is used up: free some space, then run the same command again.",
    errno.EFBIG: "The file size limit is reached: raise it, then run the same command again.",
    errno.EROFS: "The file system is read-only: choose another folder with --run DIR.",
    errno.EACCES: "Give yourself the permission, or choose another folder with --run DIR.",
    errno.EPERM: "Give yourself the permission, or choose another folder with --run DIR.",
}


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Turns an OSError inside into a RunFolderError that names `path` and the way out."""
    try:
        yield
    except OSError as error:
        raise RunFolderError(cannot_write(path, error)) from error


def cannot_write(path: Path, error: OSError) -> str:
    """The one line for a file or folder that cannot be written."""
    reason = os.strerror(error.errno) if error.errno else str(error)
    way_out = WAY_OUT.get(error.errno or 0, "Nothing that was saved is lost: run the same command again.")
    return f"{path} cannot be written: {reason}. {way_out}"


def replace_text(path: Path, text: str) -> None:
    """Writes `text` to `path` in one atomic exchange.

    Raises:
      RunFolderError: the folder cannot be written.
    """
    with writing(path):
        handle, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
        try:
            with os.fdopen(handle, "w", encoding="utf-8") as file:
                file.write(text)
                file.flush()
                os.fsync(file.fileno())
            Path(name).chmod(0o644)
            Path(name).replace(path)
        except BaseException:
            with suppress(OSError):
                Path(name).unlink()
            raise


def replace_json(path: Path, value: Any) -> None:
    """Writes `value` as indented JSON to `path` in one atomic exchange."""
    replace_text(path, json.dumps(value, indent=2) + "\n")


def read_json(path: Path, way_out: str) -> Any:
    """The JSON in `path`.

    Raises:
      RunFolderError: it cannot be read or is not JSON; the message ends with `way_out`.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise RunFolderError(f"{path} cannot be read ({error}). {way_out}") from error
