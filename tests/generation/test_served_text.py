"""Text that appears token by token and ends before a string: whatever the tokens are, the same text is shown."""

import itertools

from hypothesis import given
from hypothesis import strategies as st

from lmlab.generation.served_text import StoppableText

BYTES = [bytes([i]) for i in range(256)]


def shown(text: str, stops: list[str], cuts: list[int]) -> tuple[str, bool]:
    """Fed as tokens of one byte and of several."""
    raw = text.encode()
    edges = sorted({0, len(raw), *(cut % (len(raw) + 1) for cut in cuts)})
    pieces = [raw[a:b] for a, b in itertools.pairwise(edges)]
    stream, out = StoppableText([*BYTES, *pieces], stops), ""
    for i in range(len(pieces)):
        out += stream.feed(256 + i)
        if stream.stopped:
            break
    return out + stream.finish(), stream.stopped


@given(
    st.text("abé", max_size=30),
    st.lists(st.text("abé", min_size=1, max_size=4), max_size=3),
    st.lists(st.integers(0, 99), max_size=20),
)
def test_it_is_the_text_before_the_first_of_the_stops(text, stops, cuts):
    found = [text.find(stop) for stop in stops if stop in text]
    out, stopped = shown(text, stops, [*cuts])
    if not found:
        assert (out, stopped) == (text, False)
    else:  # several that come with one token: the one that begins first
        assert stopped and text.startswith(out)
        assert not any(stop in out for stop in stops)
        assert any(text.startswith(stop, len(out)) for stop in stops)
    one_by_one, _ = shown(text, stops, list(range(99)))
    assert len(one_by_one) >= (min(found) if found else len(text))


def test_what_could_begin_a_stop_is_held_back_until_it_is_known():
    stream = StoppableText(BYTES, ["END"])
    assert [stream.feed(token) for token in b"aEEN!"] == ["a", "", "E", "", "EN!"]
    assert [stream.feed(token) for token in b"bEND"] == ["b", "", "", ""] and stream.stopped
    assert stream.finish() == ""


def test_characters_appear_whole():
    stream = StoppableText(BYTES)
    assert [stream.feed(token) for token in "é".encode()] == ["", "é"]
    assert stream.feed("é".encode()[0]) == "" and stream.finish() == "\ufffd"
