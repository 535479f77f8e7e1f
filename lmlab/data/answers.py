"""Where the model speaks in a conversation that a chat template has written."""

from __future__ import annotations

from collections.abc import Sequence

from lmlab.data.chat_template import ChatTemplate, Message
from lmlab.errors import DataError

ASSISTANT = "assistant"
BEGINS, ENDS = "\ufdd0", "\ufdd1"
"""Marks around what the model says: characters that Unicode keeps out of texts."""

Span = tuple[int, int]
"""Characters [start, stop)."""


def written(template: ChatTemplate, messages: Sequence[Message]) -> tuple[str, list[Span]]:
    """A conversation as text, and the characters that the model says in it, the end of its turns among them.

    A template says so itself by `{% generation %}`. Of one that does not, an answer is what it adds to the conversation
    so far, opened for an answer; white space at its end is the template's, unless it is all that ends the turn.

    Example, of ChatML (user: Hi, assistant: Yes), with the answer in brackets:
      <|im_start|>user / Hi<|im_end|> / <|im_start|>assistant / [Yes<|im_end|>] /

    Raises:
      DataError: the template refuses the conversation, or writes an answer in another way once it goes on.
    """
    if any(mark in message["content"] for message in messages for mark in (BEGINS, ENDS)):
        raise DataError("the conversation has U+FDD0 or U+FDD1 in it, which are no characters of texts.")
    text = template.render(messages, marks=(BEGINS, ENDS))
    if BEGINS in text:
        return _unmarked(text)
    places = [place for place, message in enumerate(messages) if message["role"] == ASSISTANT]
    return text, [_answer(template, messages, place, text) for place in places]


def _unmarked(text: str) -> tuple[str, list[Span]]:
    """The text without its marks, and where they stood."""
    plain, *parts = text.split(BEGINS)
    spans = []
    for part in parts:
        said, _, rest = part.partition(ENDS)
        spans.append((len(plain), len(plain) + len(said)))
        plain += said + rest
    return plain, spans


def _answer(template: ChatTemplate, messages: Sequence[Message], place: int, text: str) -> Span:
    """The characters of one answer, by what the template writes with and without it."""
    asked, content = messages[:place], messages[place]["content"]
    before = template.render(asked)
    opened, closed = template.render(asked, add_generation_prompt=True), template.render(messages[: place + 1])
    if not text.startswith(closed) or not closed.startswith(before):
        raise DataError(
            "the chat template writes an answer in another way once the conversation goes on, so that what the model "
            "says in it cannot be told. Mark it in the template: {% generation %} ... {% endgeneration %}"
        )
    said = next((form for form in (content, content.strip()) if form in closed[len(before) :]), None)
    if opened != before and closed.startswith(opened):
        start = len(opened)
    elif said:
        start = closed.index(said, len(before))
    else:
        raise DataError(
            "the chat template does not open answers (add_generation_prompt), and writes them changed. Mark them in "
            "the template: {% generation %} ... {% endgeneration %}"
        )
    behind = start if said is None else max(closed.find(said, start), start) + len(said)
    ends = len(closed.rstrip())
    return start, ends if ends > behind else len(closed)
