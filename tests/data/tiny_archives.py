"""Small archives with the facts that belong to them."""

import gzip
import hashlib
import io
import tarfile
import zipfile

from lmlab.data.archives import Archive

FILES = {"package/README": b"a corpus\n", "package/text/b.txt": b"two\n", "package/text/a.txt": b"one\n"}


def tar_gz(files: dict[str, bytes], extra: tuple[tarfile.TarInfo, ...] = ()) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
        for info in extra:
            tar.addfile(info)
    return gzip.compress(buffer.getvalue(), mtime=0)


def archive_of(content: bytes, name: str = "tiny-corpus-1.0.0.tgz", client: str = "npm") -> Archive:
    """The facts of an archive with this content."""
    package = name.split("-")[0] if client == "pypi" else "tiny-corpus"
    checksum = hashlib.sha256(content).hexdigest()
    return Archive(name, client, package, "1.0.0", checksum, len(content), "CC0", "three files")


def wheel(files: dict[str, bytes]) -> bytes:
    """A zip with these files."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return buffer.getvalue()
