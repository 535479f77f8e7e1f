"""A request's text as it is shown while it appears: whole characters, and nothing of what ends it."""

from __future__ import annotations

from collections.abc import Sequence

from lmlab.generation.text import TextStream


class StoppableText:
    """Decodes ids as they come, up to the first of several strings that end the text.

    What could be the beginning of such a string is held back until it is known.

    Args:
      token_bytes: the UTF-8 bytes of each id.
      stops: strings that end the text and are not part of it.

    Attributes:
      stopped: whether one of them has come.
    """

    def __init__(self, token_bytes: Sequence[bytes], stops: Sequence[str] = ()) -> None:
        self._stream, self._stops = TextStream(token_bytes), [stop for stop in stops if stop]
        self._held = ""
        self.stopped = False

    def feed(self, token: int) -> str:
        """The characters that can be shown after this id."""
        return self._shown(self._stream.feed([token]), last=False)

    def finish(self) -> str:
        """What is left of the text at its end."""
        return "" if self.stopped else self._shown(self._stream.finish(), last=True)

    def _shown(self, more: str, *, last: bool) -> str:
        text = self._held + more
        found = [place for stop in self._stops if (place := text.find(stop)) >= 0]
        if found:
            self.stopped, self._held = True, ""
            return text[: min(found)]
        keep = 0 if last else max((_overlap(text, stop) for stop in self._stops), default=0)
        self._held = text[len(text) - keep :]
        return text[: len(text) - keep]


def _overlap(text: str, stop: str) -> int:
    """The greatest number of characters at the end of `text` with which `stop` begins, less than all of it."""
    longest = min(len(stop) - 1, len(text))
    return next((size for size in range(longest, 0, -1) if text.endswith(stop[:size])), 0)
