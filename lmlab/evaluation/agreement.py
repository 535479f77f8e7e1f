"""Pairs of English sentences that differ in one word, of which one agrees: drawn from a small grammar.

In the manner of Marvin & Linzen 2018 (arXiv:1808.09031), whose phenomena these are, and of BLiMP (Warstadt et al. 2020,
arXiv:1912.00582), from which `determiner_noun` is; the grammar and its words are lmlab's own. Words are common ones, so
that a small vocabulary has them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple, TypeVar

import numpy as np

W = TypeVar("W")
SINGULAR, PLURAL = 0, 1
NOUNS = tuple(
    (noun, f"{noun}s") for noun in ("author", "doctor", "teacher", "farmer", "manager", "officer", "student", "driver",
                                    "neighbor", "writer", "king", "boy", "girl", "friend", "brother", "sister")
)  # fmt: skip
VERBS = (
    ("is old", "are old"), ("is young", "are young"), ("is tall", "are tall"), ("is here", "are here"),
    ("laughs", "laugh"), ("works", "work"), ("sleeps", "sleep"), ("smiles", "smile"), ("runs", "run"),
    ("sings", "sing"), ("talks", "talk"), ("was late", "were late"), ("has left", "have left"),
)  # fmt: skip
TRANSITIVE = (("likes", "like"), ("knows", "know"), ("loves", "love"), ("hates", "hate"), ("sees", "see"))
PREPOSITIONS = ("near", "behind", "next to", "in front of", "beside", "with", "across from")
REFLEXIVE_VERBS = ("hurt", "saw", "helped", "blamed", "praised", "defended")
SAID = ("said", "thought", "knew")
REFLEXIVES = (("himself", "herself"), ("themselves", "themselves"))


class Pair(NamedTuple):
    """Two sentences.

    Attributes:
      good: agrees.
      bad: does not.
    """

    good: str
    bad: str


@dataclass(frozen=True)
class Draw:
    """Chooses words; a number is that of the subject."""

    random: np.random.Generator

    def of(self, words: tuple[W, ...]) -> W:
        """One of them."""
        return words[int(self.random.integers(len(words)))]

    def number(self) -> int:
        """Singular or plural."""
        return int(self.random.integers(2))

    def nouns(self) -> tuple[tuple[str, str], tuple[str, str]]:
        """Two different nouns, in both numbers."""
        first, second = self.random.choice(len(NOUNS), 2, replace=False)
        return NOUNS[first], NOUNS[second]


def _two(start: str, forms: tuple[str, str], number: int, end: str = ".") -> Pair:
    """The sentence with the form of a number, and with that of the other number."""
    return Pair(f"{start} {forms[number]}{end}", f"{start} {forms[1 - number]}{end}")


def simple_agreement(draw: Draw) -> Pair:
    """The author laughs. / The author laugh."""
    noun, number = draw.of(NOUNS), draw.number()
    return _two(f"The {noun[number]}", draw.of(VERBS), number)


def across_prepositional_phrase(draw: Draw) -> Pair:
    """The author near the doctors laughs. / The author near the doctors laugh."""
    (noun, other), number = draw.nouns(), draw.number()
    return _two(f"The {noun[number]} {draw.of(PREPOSITIONS)} the {other[1 - number]}", draw.of(VERBS), number)


def across_subject_relative(draw: Draw) -> Pair:
    """The author that likes the doctors laughs. / The author that likes the doctors laugh."""
    (noun, other), number = draw.nouns(), draw.number()
    return _two(
        f"The {noun[number]} that {draw.of(TRANSITIVE)[number]} the {other[1 - number]}", draw.of(VERBS), number
    )


def across_object_relative(draw: Draw) -> Pair:
    """The author that the doctors like laughs. / The author that the doctors like laugh."""
    (noun, other), number = draw.nouns(), draw.number()
    relative = f"that the {other[1 - number]} {draw.of(TRANSITIVE)[1 - number]}"
    return _two(f"The {noun[number]} {relative}", draw.of(VERBS), number)


def within_object_relative(draw: Draw) -> Pair:
    """The author that the doctors like laughs. / The author that the doctors likes laughs."""
    (noun, other), number = draw.nouns(), draw.number()
    end = f" {draw.of(VERBS)[1 - number]}."
    return _two(f"The {noun[1 - number]} that the {other[number]}", draw.of(TRANSITIVE), number, end)


def in_coordination(draw: Draw) -> Pair:
    """The author laughs and works. / The author laughs and work."""
    noun, number, first = draw.of(NOUNS), draw.number(), draw.of(VERBS)
    second = draw.of(tuple(verb for verb in VERBS if verb != first))
    return _two(f"The {noun[number]} {first[number]} and", second, number)


def of_coordinated_subjects(draw: Draw) -> Pair:
    """The author and the doctor laugh. / The author and the doctor laughs."""
    noun, other = draw.nouns()
    return _two(f"The {noun[SINGULAR]} and the {other[SINGULAR]}", draw.of(VERBS), PLURAL)


def determiner_noun(draw: Draw) -> Pair:
    """The author likes these doctors. / The author likes this doctors. (BLiMP)"""
    (noun, other), number, subject = draw.nouns(), draw.number(), draw.number()
    start = f"The {noun[subject]} {draw.of(TRANSITIVE)[subject]}"
    return _two(start, draw.of((("this", "these"), ("that", "those"))), number, f" {other[number]}.")


def reflexive(draw: Draw) -> Pair:
    """The author hurt himself. / The author hurt themselves."""
    noun, number = draw.of(NOUNS), draw.number()
    return _two(f"The {noun[number]} {draw.of(REFLEXIVE_VERBS)}", _reflexives(draw, noun), number)


def reflexive_across_relative(draw: Draw) -> Pair:
    """The author that the doctors like hurt himself. / The author that the doctors like hurt themselves."""
    (noun, other), number = draw.nouns(), draw.number()
    start = f"The {noun[number]} that the {other[1 - number]} {draw.of(TRANSITIVE)[1 - number]}"
    return _two(f"{start} {draw.of(REFLEXIVE_VERBS)}", _reflexives(draw, noun), number)


def reflexive_in_complement(draw: Draw) -> Pair:
    """The doctors said the author hurt himself. / The doctors said the author hurt themselves."""
    (noun, other), number = draw.nouns(), draw.number()
    start = f"The {other[1 - number]} {draw.of(SAID)} the {noun[number]} {draw.of(REFLEXIVE_VERBS)}"
    return _two(start, _reflexives(draw, noun), number)


def _reflexives(draw: Draw, noun: tuple[str, str]) -> tuple[str, str]:
    """`himself` or `herself`, whichever the noun allows, and `themselves`."""
    if noun[0] in ("king", "boy", "brother"):
        return "himself", "themselves"
    if noun[0] in ("girl", "sister"):
        return "herself", "themselves"
    return draw.of(REFLEXIVES[SINGULAR]), "themselves"


PHENOMENA: dict[str, Callable[[Draw], Pair]] = {
    made.__name__: made
    for made in (
        simple_agreement, across_prepositional_phrase, across_subject_relative, across_object_relative,
        within_object_relative, in_coordination, of_coordinated_subjects, determiner_noun, reflexive,
        reflexive_across_relative, reflexive_in_complement,
    )
}  # fmt: skip
"""How a pair of each phenomenon is drawn."""


def pairs_of(phenomenon: str, count: int, seed: int = 0) -> list[Pair]:
    """So many different pairs of a phenomenon, or all that there are where drawing finds no other ones.

    A pure function of its arguments; phenomena do not depend on each other.
    """
    draw = Draw(np.random.default_rng([seed, *phenomenon.encode()]))
    found: dict[Pair, None] = {}
    misses = 0
    while len(found) < count and misses < 1000:
        pair = PHENOMENA[phenomenon](draw)
        misses = misses + 1 if pair in found else 0
        found[pair] = None
    return list(found)
