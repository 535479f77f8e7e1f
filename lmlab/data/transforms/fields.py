"""Which texts an example of each kind has, and how they are changed so that tags and answers stay in step."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from lmlab.errors import ConfigError, DataError
from lmlab.examples import Document, LabelledText, Question, TaggedText, Text, TextPair

TEXTS: dict[type, tuple[str, ...]] = {
    Text: ("text",),
    Document: ("sentences",),
    TextPair: ("text", "target"),
    LabelledText: ("text", "second"),
    TaggedText: ("words",),
    Question: ("question", "context", "answers", "choices"),
}
"""Every text of an example; the first must not become empty."""

INPUTS = {**TEXTS, TextPair: ("text",), Question: ("question",)}
"""The texts that may be changed while what is to be predicted from them stays."""

Edit = Callable[[Sequence[str], Sequence[bool]], Sequence[tuple[int, str]]]
"""(words, which of them may change places) → for every word that there is now, the place of the one it comes from."""

_WORD = re.compile(r"\S+")


def with_texts(
    example: Any, change: Callable[[str], str], name: str, fields: Mapping[type, tuple[str, ...]] = TEXTS
) -> Any | None:
    """The example with `change` applied to its texts; None where its first text is blank then.

    Args:
      example: of a kind that holds text.
      change: of one text; of one word, where words have tags.
      name: the transform's, for messages.
      fields: which texts.

    Raises:
      ConfigError: the example holds no text.
      DataError: a tagged word would not be one word, or an answer would not stand in its context where it stood.
    """
    changed: dict[str, Any] = {}
    for field in _fields(example, name, fields):
        value = getattr(example, field)
        if isinstance(value, str):
            changed[field] = change(value)
        elif value is not None:
            changed[field] = tuple(map(change, value))
    if isinstance(example, Document):
        changed["sentences"] = tuple(text for text in changed["sentences"] if text.strip())
    found = replace(example, **changed)
    _check(found, name)
    return found if _has_text(found) else None


def with_words(
    example: Any, edit: Edit, name: str, fields: Mapping[type, tuple[str, ...]] = INPUTS, *, moves: bool = False
) -> Any | None:
    """The example with `edit` applied to the words of its texts; None where its first text has none then.

    Words are what stands between white space. The white space before a word stays with it, or, where no word goes,
    with its place. Tags go with their words; a BIO span whose first word goes begins with the next one. Words in a
    span do not change places.

    Args:
      example: of a kind that holds text.
      edit: of the words of one text.
      name: the transform's, for messages.
      fields: which texts.
      moves: whether `edit` changes the order.

    Raises:
      ConfigError: the example holds no text.
      DataError: an answer would not stand in its context where it stood.
    """
    if not isinstance(example, TaggedText):
        return with_texts(example, lambda text: _edited(text, edit), name, fields)
    movable = [not (moves and tag.startswith(("B-", "I-"))) for tag in example.tags]
    edited = edit(example.words, movable)
    tags = repaired(example.tags, [place for place, _ in edited])
    return replace(example, words=tuple(word for _, word in edited), tags=tags) if edited else None


def inputs(example: Any, name: str) -> Iterator[str]:
    """The texts of an example that augmentation changes; ConfigError where it holds none."""
    for field in _fields(example, name, INPUTS):
        value = getattr(example, field)
        if isinstance(value, str):
            yield value
        elif value is not None:
            yield from (" ".join(value),) if isinstance(example, TaggedText) else value


def repaired(tags: Sequence[str], places: Sequence[int]) -> tuple[str, ...]:
    """The tags at `places`, where a span whose `B-` went begins with what is left of it.

    Example: `B-x I-x I-x O` at 1, 2, 3 → `B-x I-x O`.
    """
    spans, span = [], 0
    for place, tag in enumerate(tags):
        continues = tag.startswith("I-") and place > 0 and tags[place - 1][1:] == tag[1:]
        span += not continues
        spans.append(span)
    begun = dict(zip(reversed(spans), reversed(tags), strict=True))  # a span's first tag
    found, before = [], 0
    for place in places:
        tag, span = tags[place], spans[place]
        orphan = tag.startswith("I-") and span != before and begun[span].startswith("B-")
        found.append(f"B{tag[1:]}" if orphan else tag)
        before = span
    return tuple(found)


def _edited(text: str, edit: Edit) -> str:
    words = list(_WORD.finditer(text))
    if not words:
        return text
    edges = [0, *(word.end() for word in words)]
    spaces = [text[edge : word.start()] for edge, word in zip(edges, words, strict=False)]
    edited = edit([word.group() for word in words], [True] * len(words))
    if len(edited) == len(words):
        parts = [f"{space}{word}" for space, (_, word) in zip(spaces, edited, strict=True)]
    else:
        parts = [f"{spaces[place] if number else spaces[0]}{word}" for number, (place, word) in enumerate(edited)]
    return "".join([*parts, text[edges[-1] :]])


def _fields(example: Any, name: str, fields: Mapping[type, tuple[str, ...]]) -> tuple[str, ...]:
    if type(example) not in fields:
        kinds = ", ".join(kind.__name__ for kind in fields)
        raise ConfigError(f"the transform '{name}' changes text, and {type(example).__name__} holds none; {kinds} do.")
    return fields[type(example)]


def _check(example: Any, name: str) -> None:
    """DataError where words and tags, or contexts and answers, are out of step."""
    if isinstance(example, TaggedText):
        for word in example.words:
            if len(word.split()) != 1:
                raise DataError(f"{example.source}: '{name}' makes '{word}' of a tagged word, which is not one word.")
    if isinstance(example, Question):
        for answer, start in zip(example.answers, example.starts, strict=False):
            if not example.context.startswith(answer, start):
                raise DataError(
                    f"{example.source}: after '{name}' the answer '{answer}' does not stand at character {start} of "
                    "its context. Apply it before the answers are looked up, or leave it out."
                )


def _has_text(example: Any) -> bool:
    value = getattr(example, TEXTS[type(example)][0])
    return bool(value.strip() if isinstance(value, str) else value)
