"""Reading SWORD modules of the driver zText with OSIS markup: compressed blocks of verses, and two indexes.

Of each testament, `ot` and `nt`, there are three files, all numbers little-endian:
- `.bzs`, 12 bytes a block: where the block begins in `.bzz`, its size there, its size unpacked;
- `.bzv`, 10 bytes an entry: number of the block, where the entry begins in the unpacked block (4 bytes each), its
  length (2 bytes);
- `.bzz`, the blocks, each compressed by zlib.

Entries stand in a fixed order: two for the module and the testament, then for each book one with its heading, for each
chapter one with its heading, then its verses. Which is which is seen from the headings' own markup.
"""

from __future__ import annotations

import html
import re
import struct
import zlib
from collections.abc import Iterator, Mapping

from lmlab_third_party.verses import BOOKS, Verse

from lmlab.errors import DataError

_FRONT = 2
_BOOK = re.compile(r'<div (?=[^>]*\btype="book")(?=[^>]*\bsID=)[^>]*>')
_CHAPTER = re.compile(r'<chapter (?=[^>]*\bsID=)[^>]*\bosisID="[^".]+\.(\d+)"[^>]*>')
_LEFT_OUT = re.compile(
    r'<note\b[^>]*(?<!/)>.*?</note>|<title\b(?![^>]*\btype="psalm")[^>]*(?<!/)>.*?</title>', re.DOTALL
)
_END_OF_TITLE = re.compile(r"</title>")
_TAG = re.compile(r"<[^>]*>")
_OTHER_MARKS = re.compile(r"¶|\\\+?[a-z]+\*?")


def verses(files: Mapping[str, bytes], module: str) -> dict[Verse, str]:
    """The verses that have text, from the contents of a module's six files by their names.

    Raises:
      DataError: a file is missing or damaged, or there are other books than the 66 that are expected.
    """
    found: dict[Verse, str] = {}
    book = 0
    for testament in ("ot", "nt"):
        chapter = verse = 0
        entries = _entries(files, testament, module)
        for entry in entries[_FRONT:]:
            if _BOOK.search(entry):
                book, chapter = book + 1, 0
            elif heading := _CHAPTER.search(entry):
                chapter, verse = int(heading[1]), 0
            elif not book or not chapter:
                raise DataError(f"{module}: {testament}: an entry stands before the first chapter: '{entry[:40]}'.")
            else:
                verse += 1
                if text := plain(entry):
                    found[book, chapter, verse] = text
    if book != len(BOOKS):
        raise DataError(f"{module}: it has {book} books, not {len(BOOKS)}.")
    return found


def plain(entry: str) -> str:
    """An entry without its markup, white space joined.

    Notes and headings go with what is in them, except the superscriptions of psalms, which belong to the first verse;
    of all else (Strong's numbers, added words, poetry, speakers) the words stay. Pilcrows go, and so do the markers of
    an older markup, such as `\\nd`, that a few entries still have.

    Example: '¶ In the <w lemma="strong:H7225">beginning</w><note>or, first</note>.' → "In the beginning."
    """
    text = _TAG.sub("", _END_OF_TITLE.sub(" ", _LEFT_OUT.sub("", entry)))
    return " ".join(_OTHER_MARKS.sub("", html.unescape(text)).split())


def _entries(files: Mapping[str, bytes], testament: str, module: str) -> list[str]:
    try:
        blocks = list(_blocks(files[f"{testament}.bzs"], files[f"{testament}.bzz"]))
        places = struct.iter_unpack("<IIH", files[f"{testament}.bzv"])
        return [_slice(blocks[block], start, size).decode() for block, start, size in places]
    except KeyError as error:
        raise DataError(f"{module}: the file {error} is missing.") from error
    except (struct.error, zlib.error, IndexError, EOFError, UnicodeDecodeError) as error:
        raise DataError(f"{module}: its files of '{testament}' are damaged ({error}).") from error


def _blocks(index: bytes, packed: bytes) -> Iterator[bytes]:
    for start, size, unpacked in struct.iter_unpack("<III", index):
        block = zlib.decompress(_slice(packed, start, size)) if size else b""
        if len(block) != unpacked:
            raise EOFError(f"a block has {len(block):,} bytes, not {unpacked:,}")
        yield block


def _slice(data: bytes, start: int, size: int) -> bytes:
    if start + size > len(data):
        raise EOFError(f"{size:,} bytes from {start:,} on are not there")
    return data[start : start + size]
