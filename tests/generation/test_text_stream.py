"""Text that appears token by token."""

import pytest

from lmlab.generation.text import TextStream

BYTES = [bytes([b]) for b in range(256)]


@pytest.mark.parametrize("size", [1, 2, 3, 5])
def test_characters_of_several_bytes_are_never_torn(size):
    text = "naïve – 日本語 🙂!"
    ids = text.encode()
    stream = TextStream(BYTES)
    parts = [stream.feed(ids[i : i + size]) for i in range(0, len(ids), size)]
    assert "".join(parts) + stream.finish() == text
    assert "\ufffd" not in "".join(parts)


def test_bytes_that_are_no_character_are_shown_as_such_and_lose_nothing_after_them():
    stream = TextStream(BYTES)
    assert stream.feed(b"a\xffb\xe6\x97") == "a\ufffdb"
    assert stream.finish() == "\ufffd"
