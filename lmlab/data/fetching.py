"""Fetching archives through the package clients, npm, pip and apt: checked, whole or not at all, and never run.

Source packages of PyPI are the exception (`package_index`): there is no way to have pip download them and run nothing.
"""

from __future__ import annotations

import fcntl
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from lmlab.data.archives import Archive, sha256_of
from lmlab.data.package_index import download
from lmlab.errors import DataError

Say = Callable[[str], None]

SAY_EVERY = 10.0
"""Seconds between two lines while a client is at work: the clients do not tell a pipe how far they are."""

_NPM_OPTIONS = ("--ignore-scripts", "--loglevel=error", "--pack-destination=.")
# Only a wheel is downloaded without running code, and which Python it is for does not matter: it is not installed.
_PIP_OPTIONS = (
    "--no-deps", "--only-binary=:all:", "--ignore-requires-python", "--no-input", "--quiet",
    "--disable-pip-version-check", "--dest=.",
)  # fmt: skip
_APT_OPTIONS = ("--quiet=2", "--option=Dpkg::Use-Pty=0")
_PROGRAMS = {"npm": "npm", "pypi": "pip", "apt": "apt-get"}
_DOUBTS = {
    "npm": "Is the network there?",
    "pypi": "Is the network there?",
    "apt": "Is the network there, and are apt's lists of packages new ('apt-get update')?",
}
_MARKS = ("npm error ", "npm ERR! ", "ERROR: ", "E: ")


def fetch(archive: Archive, say: Say = print) -> None:
    """Brings an archive into the cache folder; one that is there with the right checksum is not fetched again.

    Whatever ends it, the archive is there whole or not at all. Of several processes that fetch it, the first works
    and the others wait.

    Raises:
      DataError: the client is missing or fails, what it brings is not the archive, or the folder cannot be written.
    """
    if archive.is_whole():
        say(f"{archive.name}: already here")
        return
    with _writing(archive.path.parent), _locked(archive.path):
        if archive.is_whole():
            say(f"{archive.name}: already here")
            return
        with _work_folder(archive.path) as folder:
            found = _bring(archive, folder, say)
            found.replace(archive.path)


def _bring(archive: Archive, folder: Path, say: Say) -> Path:
    """The archive in `folder`, with the right checksum."""
    say(f"{archive.name}: fetching {archive.size / 1e6:,.1f} MB ({archive.client} {archive.package} {archive.version})")
    started = time.monotonic()
    waiting = _now_and_then(lambda: say(f"  {time.monotonic() - started:.0f} s"))
    if archive.is_source_package:
        download(archive, folder, waiting)
    else:
        _run(_command(archive), archive, folder, waiting)
    found = _checked(archive, folder)
    say(f"{archive.name}: fetched in {time.monotonic() - started:.0f} s, sha256 is right")
    return found


def _now_and_then(do: Callable[[], None]) -> Callable[[], None]:
    """A function that, however often it is called, does something every `SAY_EVERY` seconds."""
    last = time.monotonic()

    def called() -> None:
        nonlocal last
        if time.monotonic() - last >= SAY_EVERY:
            last = time.monotonic()
            do()

    return called


def _checked(archive: Archive, folder: Path) -> Path:
    """What a client brought; DataError unless it is the archive."""
    found = folder / archive.name
    if not found.is_file() or found.is_symlink():
        brought = ", ".join(sorted(path.name for path in folder.iterdir())) or "nothing"
        raise DataError(f"{archive.name}: {_program(archive)} brought {brought} instead of it.")
    if (checksum := sha256_of(found)) != archive.sha256:
        raise DataError(
            f"{archive.name}: what {_program(archive)} brought has the sha256 {checksum}, not {archive.sha256}, and "
            "was removed. Try again; if it stays so, the registry or mirror that it asks serves another file."
        )
    if (size := found.stat().st_size) != archive.size:
        raise DataError(f"{archive.name} has {size} bytes, not {archive.size}: correct the size beside its checksum.")
    return found


def _command(archive: Archive) -> list[str]:
    if archive.client == "pypi":
        return [sys.executable, "-m", "pip", "download", *_PIP_OPTIONS, f"{archive.package}=={archive.version}"]
    if archive.client == "apt":
        apt = _found("apt-get", archive, "It belongs to Debian and Ubuntu: there fetch this too")
        return [apt, *_APT_OPTIONS, "download", f"{archive.package}={archive.version}"]
    npm = _found("npm", archive, "Install Node.js")
    return [npm, "pack", *_NPM_OPTIONS, f"{archive.package}@{archive.version}"]


def _found(program: str, archive: Archive, way_out: str) -> str:
    path = shutil.which(program)
    if path is None:
        raise DataError(
            f"{archive.name}: {program} is not installed, and brings it. {way_out}, or copy the file from a machine "
            f"that has it to {archive.path}."
        )
    return path


def _run(command: list[str], archive: Archive, folder: Path, waiting: Callable[[], None]) -> None:
    """Runs a client in `folder`, calling `waiting` now and then; DataError with its own words where it fails."""
    # A file takes what it says: with a pipe, a grandchild that keeps the pipe open would keep us waiting.
    with (folder / ".said").open("w+b") as said:
        try:
            client = subprocess.Popen(command, cwd=folder, stdin=subprocess.DEVNULL, stdout=said, stderr=said)
        except OSError as error:
            raise DataError(f"{archive.name}: {command[0]} cannot be started: {error.strerror}.") from error
        code = _wait(client, waiting)
        said.seek(0)
        words = said.read().decode(errors="replace")
    (folder / ".said").unlink()
    if code:
        raise DataError(
            f"{archive.name}: {_program(archive)} failed (exit code {code}): {_reason(words)}\n"
            f"  {_DOUBTS[archive.client]} The same command begins anew."
        )


def _wait(client: subprocess.Popen[bytes], waiting: Callable[[], None]) -> int:
    try:
        while True:
            try:
                return client.wait(SAY_EVERY)
            except subprocess.TimeoutExpired:
                waiting()
    except BaseException:
        client.kill()
        client.wait()
        raise


def _reason(words: str) -> str:
    """The line that says why a client failed: its first error that is a sentence, else its last line.

    npm's first errors are codes, its last lines name a log file.
    """
    lines = [line.strip() for line in words.splitlines() if line.strip()]
    errors = [line.removeprefix(mark) for line in lines for mark in _MARKS if line.startswith(mark)]
    sentences = [error for error in errors if len(error.split()) > 3]
    return (sentences or lines[-1:] or ["it said nothing"])[0]


def _program(archive: Archive) -> str:
    if archive.is_source_package:
        return "the package index"
    return _PROGRAMS[archive.client]


@contextmanager
def _writing(folder: Path) -> Iterator[None]:
    """Makes `folder`, and turns an OSError inside into a DataError that names it."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        yield
    except OSError as error:
        raise DataError(
            f"{folder}, where archives are kept, cannot be written: {error.strerror}. "
            "Make room or give yourself the permission, or name another folder by the variable LMLAB_DATA."
        ) from error


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """One process at a time; the lock goes with the process, however it ends. Its empty file stays."""
    with path.with_name(f".{path.name}.lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


@contextmanager
def _work_folder(path: Path) -> Iterator[Path]:
    """An empty folder beside `path`, gone afterwards; what a killed process left there is gone before."""
    folder = path.with_name(f".{path.name}.part")
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
