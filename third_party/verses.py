"""The books of the Bible by number, and which chapters of it are held out: for every dataset of verses alike."""

from __future__ import annotations

from lmlab.data.corpus import md5_modulo

BOOKS = (
    "Genesis", "Exodus", "Leviticus", "Numbers", "Deuteronomy", "Joshua", "Judges", "Ruth", "1 Samuel", "2 Samuel",
    "1 Kings", "2 Kings", "1 Chronicles", "2 Chronicles", "Ezra", "Nehemiah", "Esther", "Job", "Psalms", "Proverbs",
    "Ecclesiastes", "Song of Solomon", "Isaiah", "Jeremiah", "Lamentations", "Ezekiel", "Daniel", "Hosea", "Joel",
    "Amos", "Obadiah", "Jonah", "Micah", "Nahum", "Habakkuk", "Zephaniah", "Haggai", "Zechariah", "Malachi", "Matthew",
    "Mark", "Luke", "John", "Acts", "Romans", "1 Corinthians", "2 Corinthians", "Galatians", "Ephesians",
    "Philippians", "Colossians", "1 Thessalonians", "2 Thessalonians", "1 Timothy", "2 Timothy", "Titus", "Philemon",
    "Hebrews", "James", "1 Peter", "2 Peter", "1 John", "2 John", "3 John", "Jude", "Revelation",
)  # fmt: skip
"""In the order of the Protestant canon: Genesis is book 1, Matthew 40, Revelation 66."""

_SPLIT_OF_TWENTIETH = {0: "test", 1: "valid"}

Verse = tuple[int, int, int]
"""Book, chapter and verse, each from 1 on."""


def split_of_chapter(chapter: str) -> str:
    """The split of a chapter, such as `Genesis 1`: its md5 as a number, modulo 20, is 0 for test and 1 for valid.

    A chapter is in the same split whatever languages its verses are in.
    """
    return _SPLIT_OF_TWENTIETH.get(md5_modulo(chapter, 20), "train")


def chapter_of(verse: Verse) -> str:
    """The chapter that a verse is in, such as `Genesis 1`."""
    return f"{BOOKS[verse[0] - 1]} {verse[1]}"
