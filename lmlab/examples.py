"""Example kinds: what a dataset yields, before any tokenizer or model is chosen.

Every kind says by `source` where the example stands, for messages. Nothing here imports arrays.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np


@dataclass(frozen=True)
class Text:
    """One document: its text, and where it stood (`text` encodes without loss to UTF-8)."""

    text: str
    source: str = ""


@dataclass(frozen=True)
class Document:
    """One document as its sentences, in their order: for objectives that need to know where a sentence ends."""

    sentences: tuple[str, ...]
    source: str = ""


@dataclass(frozen=True)
class TextPair:
    """A text and what it is to be turned into: a translation, a summary, a pronunciation, a sequence of actions."""

    text: str
    target: str
    source: str = ""


@dataclass(frozen=True)
class LabelledText:
    """A text, or two that belong together, with one of the dataset's labels."""

    text: str
    label: str
    second: str | None = None
    source: str = ""


@dataclass(frozen=True)
class TaggedText:
    """Words, each with a tag (BIO tags mark spans); the whole may have a label too, such as an intent."""

    words: tuple[str, ...]
    tags: tuple[str, ...]
    label: str | None = None
    source: str = ""


@dataclass(frozen=True)
class Question:
    """A question about a text.

    The answer is a stretch of the context, or one of the choices.

    Args:
      question: what is asked; in a cloze, the sentence with a blank.
      context: the text that it is about.
      answers: every accepted answer; none where the context does not hold one (SQuAD 2.0).
      starts: for each answer, the place of its first character in `context`; none for multiple choice.
      choices: what is to be chosen from; none where the answer is a stretch of the context.
      source: where it stands; for SQuAD, the question's id.
    """

    question: str
    context: str
    answers: tuple[str, ...]
    starts: tuple[int, ...] = ()
    choices: tuple[str, ...] = ()
    source: str = ""


@dataclass(frozen=True)
class Conversation:
    """Turns of a conversation, in their order, of which those of the role `assistant` are what a model says.

    Args:
      roles: who speaks: `system`, `user`, `assistant` or what else a chat template knows.
      contents: what is said.
      source: where it stands.
    """

    roles: tuple[str, ...]
    contents: tuple[str, ...]
    source: str = ""


@dataclass(frozen=True, eq=False)
class Tokens:
    """One stream of token ids: a 1-d integer array, possibly memory-mapped.

    Args:
      ids: what is predicted, each but the first.
      source: where it stands.
      starts: for a stream of documents with an end-of-text id before, between and behind them, the place of each
        document's first id, increasing; None: it is one document.
    """

    ids: np.ndarray
    source: str = ""
    starts: np.ndarray | None = None


@dataclass(frozen=True, eq=False)
class TokenSequence:
    """Ids that are a row by themselves, as generated tasks have them.

    Args:
      ids: 1-d integers, (n,).
      targets: what is to be predicted after reading ids[: t + 1], (n,); None: the next id, so that there are n - 1.
      weights: how much each prediction counts, as many as there are targets; None: 1 each.
      source: where it stands.
    """

    ids: np.ndarray
    targets: np.ndarray | None = None
    weights: np.ndarray | None = None
    source: str = ""


KINDS: tuple[type, ...] = (
    Text, Document, TextPair, LabelledText, TaggedText, Question, Conversation, Tokens, TokenSequence,
)  # fmt: skip
IDS: tuple[type, ...] = (Tokens, TokenSequence)
"""The kinds that hold ids, so that no tokenizer is needed."""


def texts_of(example: Any) -> Iterator[str]:
    """Every text in an example, which is what a tokenizer is fitted on."""
    match example:
        case Text(text):
            yield text
        case Document(sentences):
            yield "\n".join(sentences)
        case TextPair(text, target):
            yield from (text, target)
        case LabelledText(text, _, second):
            yield text
            if second is not None:
                yield second
        case TaggedText(words):
            yield " ".join(words)
        case Question(question, context, answers):
            yield from (question, context, *answers)
        case Conversation(_, contents):
            yield from contents
        case _:
            raise TypeError(f"{type(example).__name__} holds no text")


def last_ids(vocab: int, roles: Sequence[str]) -> dict[str, int]:
    """The last of `vocab` ids, by the roles that they have in this order."""
    return {role: vocab - len(roles) + place for place, role in enumerate(roles)}
