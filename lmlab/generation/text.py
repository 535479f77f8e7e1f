"""Token ids as text that can be shown while it appears."""

from __future__ import annotations

import codecs
from collections.abc import Iterable, Sequence


class TextStream:
    """Decodes ids as they come; a character whose bytes arrive in several tokens appears once, when it is whole.

    Args:
      token_bytes: the UTF-8 bytes of each id, as `Tokenizer.token_bytes` gives them.
    """

    def __init__(self, token_bytes: Sequence[bytes]) -> None:
        self._token_bytes = token_bytes
        self._decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")

    def feed(self, ids: Iterable[int]) -> str:
        """The characters that these ids complete; bytes that can be no character become U+FFFD."""
        return self._decoder.decode(b"".join(self._token_bytes[int(i)] for i in ids))

    def finish(self) -> str:
        """What is left: U+FFFD for a character that was cut off, else nothing."""
        return self._decoder.decode(b"", final=True)
