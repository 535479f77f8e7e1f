"""Spans of words as tags: brackets in columns, IOB1 and BIOES, turned into BIO."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Literal, NamedTuple

from lmlab.data.files import Malformed

Nested = Literal["outermost", "innermost"]

_CELL = re.compile(r"((?:\([^()*\s]+)*)(\*?)(\)*)")


class Span(NamedTuple):
    """The words from `first` to `last`, both of them in it."""

    label: str
    first: int
    last: int


def bracketed(cells: Sequence[str]) -> list[Span]:
    """The spans of a bracketed column (CoNLL-2005, CoNLL-2012), those that end first first.

    Example: ["(ARG0*", "*)", "(V*)", "(ARG1(LOC*", "*))"] → ARG0 0-1, V 2-2, LOC 3-4, ARG1 3-4.

    Raises:
      Malformed: a cell that is not bracketed, or brackets that do not match.
    """
    opened: list[tuple[str, int]] = []
    found = []
    for place, cell in enumerate(cells):
        parts = _CELL.fullmatch(cell)
        if parts is None or not (parts[2] or parts[1]):  # `(GPE)` may stand for `(GPE*)`
            raise Malformed(f"'{cell}' at word {place} of the sentence is no bracketed cell, such as (A* or *) or *.")
        opened += [(label, place) for label in parts[1].split("(")[1:]]
        for _ in parts[3]:
            if not opened:
                raise Malformed(f"unbalanced brackets: '{cell}' at word {place} of the sentence closes none.")
            found.append(Span(*opened.pop(), place))
    if opened:
        label, place = opened[-1]
        raise Malformed(f"unbalanced brackets: '({label}*' at word {place} of the sentence is never closed.")
    return found


def flat(spans: Sequence[Span], nested: Nested) -> list[Span]:
    """Spans of which no two share a word: those in no other one, or those with no other one in them.

    Spans are properly nested, and in the order in which they end. Of spans over the same words, the outermost is the
    one that was opened first.
    """
    if nested == "outermost":
        kept: list[Span] = []
        for span in spans:  # a span ends behind all those that are in it
            kept = [other for other in kept if other.last < span.first] + [span]
        return kept
    return [span for i, span in enumerate(spans) if not any(other.first >= span.first for other in spans[:i])]


def bio(spans: Sequence[Span], words: int) -> tuple[str, ...]:
    """Spans that share no word as the tags of so many words: `B-` at a span's first word, `I-` at its others, else `O`.

    Example: [Span("ARG0", 0, 1), Span("V", 2, 2)] over 4 words → B-ARG0, I-ARG0, B-V, O.
    """
    tags = ["O"] * words
    for label, first, last in spans:
        tags[first : last + 1] = [f"B-{label}"] + [f"I-{label}"] * (last - first)
    return tuple(tags)


def from_iob1(tags: Sequence[str]) -> tuple[str, ...]:
    """IOB1, in which `B-` stands only between two spans of one type that touch (CoNLL-2003 as published), as BIO.

    Example: I-PER, I-PER, B-PER, O, I-LOC → B-PER, I-PER, B-PER, O, B-LOC.
    """
    found = []
    for before, tag in zip(("O", *tags), tags, strict=False):
        begins = tag.startswith("I-") and before[2:] != tag[2:]
        found.append(f"B-{tag[2:]}" if begins else tag)
    return tuple(found)


def from_bioes(tags: Sequence[str]) -> tuple[str, ...]:
    """BIOES (also called BILOU: `L-` ends, `U-` is alone) as BIO.

    Example: B-PER, E-PER, O, S-LOC → B-PER, I-PER, O, B-LOC.
    """
    replaced = {"S-": "B-", "U-": "B-", "E-": "I-", "L-": "I-"}
    return tuple(replaced.get(tag[:2], tag[:2]) + tag[2:] for tag in tags)
