"""Source packages of PyPI, downloaded as files: pip would run their set-up code to ask them for their metadata.

The index is the one that pip is configured for, read as pip reads it: the package's page of the simple repository API
(PEP 503 in HTML, PEP 691 in JSON), then the file that the page links to.
"""

from __future__ import annotations

import base64
import json
import os
import re
import ssl
import subprocess
import sys
import urllib.request
from collections.abc import Callable, Mapping
from html.parser import HTMLParser
from http.client import HTTPException
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urldefrag, urljoin, urlsplit

from lmlab.data.archives import Archive
from lmlab.errors import DataError

PUBLIC = "https://pypi.org/simple"
TIMEOUT = 60.0
"""Seconds without a byte after which a server counts as gone."""

_JSON = "application/vnd.pypi.simple.v1+json"
_ACCEPT = f"{_JSON}, application/vnd.pypi.simple.v1+html;q=0.2, text/html;q=0.1"
_BLOCK = 1 << 18
_FAILURES = (OSError, HTTPException, ValueError)  # no network, a server that breaks off, an address that is none


def download(archive: Archive, folder: Path, waiting: Callable[[], None]) -> None:
    """Puts a source package into `folder`, calling `waiting` after every block of bytes; nothing of it is run.

    Raises:
      DataError: no configured index has a file of this name, or none of those that have it gives all of it.
    """
    settings, problems = pip_settings(), []
    for index in indexes(settings):
        page = f"{index.rstrip('/')}/{re.sub(r'[-_.]+', '-', archive.package).lower()}/"
        try:
            context = ssl.create_default_context(cafile=settings.get("cert") or None)
            address = _linked(page, archive.name, context)
            if address is not None:
                _copy(address, folder / archive.name, context, waiting)
                return
            problems.append(f"{_shown(page)} does not have it")
        except _FAILURES as error:
            problems.append(f"{_shown(page)}: {error or type(error).__name__}")
    raise DataError(
        f"{archive.name}: no package index brings it: {'; '.join(problems)}\n"
        f"  Is the network there? The same command begins anew; or copy the file to {archive.path}."
    )


def pip_settings() -> Mapping[str, str]:
    """pip's settings by their long names, such as `index-url`: of its environment variables, else of its files."""
    command = [sys.executable, "-m", "pip", "config", "list", "--disable-pip-version-check"]
    listed = subprocess.run(command, capture_output=True, text=True, check=False).stdout  # without pip: nothing
    files = [dict(re.findall(rf"^{part}\.([\w-]+)='(.*)'$", listed, re.MULTILINE)) for part in ("global", "download")]
    names = {name: name[4:].lower().replace("_", "-") for name in os.environ if name.startswith("PIP_")}
    return {**files[0], **files[1], **{setting: os.environ[name] for name, setting in names.items()}}


def indexes(settings: Mapping[str, str]) -> list[str]:
    """The addresses of the indexes that pip would ask, in its order; PyPI is the first where none is set."""
    more = re.split(r"\\n|\s+", settings.get("extra-index-url", ""))
    return [settings.get("index-url", "").strip() or PUBLIC, *filter(None, more)]


def _linked(page: str, name: str, context: ssl.SSLContext) -> str | None:
    """The address of the file `name` on a package's page; None where the page does not link to it."""
    with _open(page, context, {"Accept": _ACCEPT}) as answer:
        content, kind = answer.read().decode(), answer.headers.get_content_type()
    if kind == _JSON:
        try:
            links = [str(file["url"]) for file in json.loads(content)["files"]]
        except (KeyError, TypeError):
            raise ValueError("this is no page of a package index") from None
    else:
        links = _Links.of(content)
    found = (urljoin(page, link) for link in links)
    return next((link for link in found if unquote(urlsplit(link).path).rpartition("/")[2] == name), None)


class _Links(HTMLParser):
    """Gathers the addresses of the links of a page."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    @classmethod
    def of(cls, content: str) -> list[str]:
        """The addresses, as the page has them."""
        parser = cls()
        parser.feed(content)
        return parser.found

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Called for each opening tag."""
        self.found += [value for name, value in attrs if tag == "a" and name == "href" and value]


def _copy(address: str, path: Path, context: ssl.SSLContext, waiting: Callable[[], None]) -> None:
    """Downloads a file; OSError where fewer bytes come than were announced."""
    with _open(urldefrag(address).url, context, {}) as answer, path.open("wb") as file:
        announced, got = answer.headers.get("Content-Length"), 0
        while block := answer.read(_BLOCK):
            file.write(block)
            got += len(block)
            waiting()
    if announced is not None and got != int(announced):
        raise OSError(f"only {got:,} of {int(announced):,} bytes came")


def _open(address: str, context: ssl.SSLContext, headers: Mapping[str, str]) -> Any:
    """The answer to a request; a name and a password in the address become a header, as pip has it."""
    parts = urlsplit(address)
    if parts.scheme == "file":
        address = f"{address}index.html" if address.endswith("/") else address
    elif parts.username is not None:
        secret = f"{unquote(parts.username)}:{unquote(parts.password or '')}".encode()
        headers = {**headers, "Authorization": f"Basic {base64.b64encode(secret).decode()}"}
        address = _shown(address)
    request = urllib.request.Request(address, headers={"User-Agent": "lmlab", **headers})
    return urllib.request.urlopen(request, timeout=TIMEOUT, context=context)


def _shown(address: str) -> str:
    """An address without name and password."""
    parts = urlsplit(address)
    return parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl()
