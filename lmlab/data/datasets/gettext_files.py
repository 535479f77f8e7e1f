"""Translations of programs' messages: the .po files of GNU gettext."""

from __future__ import annotations

import gettext
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import ClassVar

from lmlab.contracts import TextPair
from lmlab.data.file_splits import FileSplits
from lmlab.data.files import LeftOut, Malformed, check_bytes, contents, lines
from lmlab.errors import DataError
from lmlab.registry import datasets

_STRING = r'"((?:[^"\\]|\\.)*)"\s*'
_FIELD = re.compile(r"(msgctxt|msgid|msgid_plural|msgstr|msgstr\[\d+\])\s*" + _STRING)
_MORE = re.compile(_STRING)
_ESCAPE = re.compile(r"\\(x[0-9a-fA-F]{1,2}|[0-7]{1,3}|.)")
_ESCAPES = {"n": "\n", "t": "\t", "r": "\r", "a": "\a", "b": "\b", "f": "\f", "v": "\v", '"': '"', "\\": "\\"}
_CHARSET = re.compile(rb"Content-Type:[^\n\"\\]*charset=([\w.:-]+)", re.IGNORECASE)
_PLURAL = re.compile(r"^Plural-Forms:.*?\bplural\s*=\s*([^;\n]+)", re.MULTILINE | re.IGNORECASE)


@datasets.register("gettext")
@dataclass(frozen=True)
class Gettext(FileSplits):
    """Messages and their translations out of .po files, GNU gettext's format (its manual, chapter 3.2).

    A message with plural forms gives a pair of the singular with the form that the language uses for 1, and a pair of
    the plural with every other form (with the same one, where the language has no other). What a message's context
    says is not part of the text, so that one message may have several translations. Files are in the encoding that
    their header names. Left out and counted are `fuzzy`, `untranslated` and `obsolete` entries.

    Splits without files of their own are taken out of `train` by the md5 of the message. Malformed is an entry that
    msgfmt would refuse: a string that does not end, an unknown keyword or escape, a message without a msgstr.

    Args:
      train: paths or globs (`**` is any depth), relative to the working directory; `.gz`, `.bz2` and `.xz` too.
      valid: the same for the validation split (none: `valid_share` of train).
      test: the same for the test split (none: `test_share` of train).
      valid_share: part of the pairs that becomes the validation split.
      test_share: part of the pairs that becomes the test split.
      malformed: `refuse` names the first malformed entry; `drop` leaves such entries out and counts them.
    """

    example: ClassVar[type] = TextPair
    name: ClassVar[str] = "gettext"
    TINY: ClassVar[str] = """
    gettext.train = '{folder}/messages.po'
    gettext.valid_share = 0.2
    gettext.test_share = 0.2
    """

    def _examples_of(self, file: str, left_out: LeftOut) -> Iterator[TextPair]:
        singular = 0
        for entry in _entries(file, left_out):
            with left_out.row(entry.where):
                fields = entry.fields()
                if not fields["msgid"]:  # the header
                    singular = _singular_form(file, fields.get("msgstr", ""))
                elif entry.fuzzy:
                    left_out.counts["fuzzy"] += 1
                else:
                    pairs = [pair for pair in _pairs(fields, singular) if pair[1]]
                    left_out.counts["untranslated"] += not pairs
                    yield from (TextPair(text, target, entry.where) for text, target in pairs)


@dataclass
class _Entry:
    """The lines of one message, with where each stands."""

    encoding: str
    lines: list[tuple[str, str]] = field(default_factory=list)
    fuzzy: bool = False

    @property
    def where(self) -> str:
        return self.lines[0][0]

    def has(self, keyword: str) -> bool:
        """Whether a line begins with the keyword, be it `msgstr` or `msgstr[0]`."""
        return any(re.match(rf"{keyword}\b(?!_)", line) for _, line in self.lines)

    def fields(self) -> dict[str, str]:
        """Text by keyword, the lines of each joined; Malformed where there is no message in them."""
        found: dict[str, str] = {}
        keyword = ""
        for where, line in self.lines:
            check_bytes(line, self.encoding, where)
            if named := _FIELD.fullmatch(line):
                keyword = named[1]
                if keyword in found:
                    raise Malformed(f"a second {keyword} in one message.", where)
                found[keyword] = _unescaped(named[2], where)
            elif (more := _MORE.fullmatch(line)) and keyword:
                found[keyword] += _unescaped(more[1], where)
            else:
                raise Malformed('neither a keyword with a string nor a string that ends with ".', where)
        for needed in ("msgid", "msgstr[0]" if "msgid_plural" in found else "msgstr"):
            if needed not in found:
                raise Malformed(f"a message without {needed}.")
        return found


def _entries(file: str, left_out: LeftOut) -> Iterator[_Entry]:
    """Messages in their order, the header among them; obsolete ones (`#~`) are counted."""
    encoding = _encoding(file)
    entry = _Entry(encoding)
    for where, line in lines(file, encoding):
        line = line.strip()
        begins = line.startswith("#") and entry.has("msgstr")
        if begins or (re.match(r"(msgid|msgctxt)\b", line) and not line.startswith("msgid_") and entry.has("msgid")):
            yield entry
            entry = _Entry(encoding)
        if line.startswith("#~"):
            left_out.counts["obsolete"] += bool(re.match(r"#~\s*msgid\s", line))
        elif line.startswith("#,"):
            entry.fuzzy |= "fuzzy" in re.split(r"[,\s]+", line)
        elif line and not line.startswith("#"):
            entry.lines.append((where, line))
    if entry.lines:
        yield entry


def _encoding(file: str) -> str:
    """What the header names; UTF-8 where it names none, as in a template."""
    named = _CHARSET.search(contents(file))
    if named is None or named[1] == b"CHARSET":
        return "UTF-8"
    encoding = named[1].decode()
    try:
        b" ".decode(encoding)
    except (LookupError, UnicodeDecodeError):  # no codec of texts, or one that is not as ASCII
        raise DataError(
            f"{file}: its header names an unknown charset, {encoding}. Convert it: msgconv -t UTF-8."
        ) from None
    return encoding


def _unescaped(text: str, where: str) -> str:
    """A string with its C escapes replaced; Malformed for one that is not known."""

    def replaced(escape: re.Match[str]) -> str:
        code = escape[1]
        if code in _ESCAPES:
            return _ESCAPES[code]
        number = int(code[1:], 16) if code[0] == "x" and code[1:] else int(code, 8) if code.isdigit() else 128
        if number > 127:  # a byte of a character in the file's encoding, or no escape at all
            raise Malformed(f"the escape \\{code} is not known: write the character itself.", where)
        return chr(number)

    return _ESCAPE.sub(replaced, text)


def _singular_form(file: str, header: str) -> int:
    """The number of the form for 1, by the header's formula; 0 where it has none."""
    found = _PLURAL.search(header)
    if found is None:
        return 0
    try:
        return int(gettext.c2py(found[1].strip())(1))
    except ValueError as error:
        raise DataError(f"{file}: its header's plural formula cannot be read: {error}.") from None


def _pairs(fields: dict[str, str], singular: int) -> list[tuple[str, str]]:
    if "msgid_plural" not in fields:
        return [(fields["msgid"], fields["msgstr"])]
    forms = {int(key[7:-1]): text for key, text in fields.items() if key.startswith("msgstr[")}
    others = [text for number, text in sorted(forms.items()) if number != singular] or list(forms.values())
    return [(fields["msgid"], forms.get(singular, "")), *((fields["msgid_plural"], text) for text in others)]
