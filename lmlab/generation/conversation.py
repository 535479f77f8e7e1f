"""A conversation with an instruction model: turns, written by its chat template, and answers, token by token."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from lmlab.errors import DataError
from lmlab.generation.served_text import StoppableText
from lmlab.generation.slots import Holder, Sampling, Slots

if TYPE_CHECKING:
    from lmlab.data.chat_template import ChatTemplate


class Conversation:
    """What was said, and the model that answers.

    Args:
      slots: of one row; compiled as shapes are needed.
      template: how the conversation is written.
      encode: text with special tokens -> ids.
      token_bytes: the UTF-8 bytes of each id.
      ends: ids that end an answer.
      tokens: the most tokens of an answer.
      sampling: how they are drawn; each answer has a seed of its own, one more than that of the one before.
      system: what stands before the conversation, and always stays there.

    Attributes:
      messages: the turns, without those that were dropped.
    """

    def __init__(
        self,
        slots: Slots,
        template: ChatTemplate,
        encode: Callable[[str], np.ndarray],
        token_bytes: Sequence[bytes],
        ends: frozenset[int],
        *,
        tokens: int,
        sampling: Sampling,
        system: str | None = None,
    ) -> None:
        self._slots, self._template, self._encode, self._token_bytes = slots, template, encode, token_bytes
        self._ends, self._tokens, self._sampling = ends, tokens, sampling
        self._first = [] if system is None else [{"role": "system", "content": system}]
        self._prompt, self._going = np.zeros(0, np.int32), False
        self.messages: list[dict[str, str]] = []

    def reset(self) -> None:
        """Forgets what was said."""
        self.messages = []

    def say(self, text: str) -> int:
        """Adds a turn; how many of the oldest messages were dropped so that there is room for an answer.

        Whole turns are dropped, so that what is left begins with a question. A turn that has no room even alone, or
        that the template refuses, is not added.

        Raises:
          DataError: there is no room for it, or the template refuses it.
        """
        messages = [*self.messages, {"role": "user", "content": text}]
        for dropped in range(0, len(messages), 2):
            left = messages[dropped:]
            written = self._template.render([*self._first, *left], add_generation_prompt=True)
            prompt = np.asarray(self._encode(written), np.int32)
            if len(prompt) + self._tokens <= self._slots.length:
                self.messages, self._prompt = left, prompt
                return dropped
        raise DataError(
            f"this is too long: with an answer of {self._tokens} tokens there is room for "
            f"{self._slots.length - self._tokens}, and it has {len(prompt)}."
        )

    def answer(self) -> Iterator[str]:
        """The pieces of the answer as they come; what has come when it ends, or is stopped, is the model's turn."""
        text, said, self._going = StoppableText(self._token_bytes), "", True
        for token in self._written():
            said += (piece := text.feed(token))
            yield piece
            if not self._going:
                break
        said += (piece := text.finish())
        self.messages.append({"role": "assistant", "content": said})
        self._sampling = self._sampling._replace(seed=(self._sampling.seed + 1) % 2**32)
        yield piece

    def stop(self) -> None:
        """Ends the answer that is being written behind the piece that came last."""
        self._going = False

    def _written(self) -> Iterator[int]:
        """The ids of an answer, one by one."""
        need, who = len(self._prompt) + self._tokens, object()
        opening: Any = self._slots.open(need)
        while opening.token is None:
            opening = self._slots.read(opening, self._prompt, self._sampling)
        token = int(np.asarray(opening.token)[0])
        self._slots.enter(opening, self._sampling, Holder(who, need))
        try:
            for count in range(1, self._tokens + 1):
                if token in self._ends:
                    return
                yield token
                if count < self._tokens:
                    ((_, token),) = self._slots.step()
        finally:
            self._slots.leave(who)
