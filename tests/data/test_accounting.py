"""Bytes and words by table are the bytes and words of the text."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from lmlab.data.accounting import account, text_tables
from lmlab.data.tokenizers.plain import Bytes, Characters
from lmlab.data.tokenizers.words import Words


class Pieces:
    """A tokenizer with pieces of several bytes, spaces inside, in front and behind."""

    pieces = (b"", b"a", b" b", b"c d ", b"\n", b"ef", b" \t ", b"g h", b"\xc3", b"\xa9 ")

    def token_bytes(self):
        return list(self.pieces)


def test_the_tables_of_the_docstring():
    tables = text_tables(Pieces())
    assert tables.bytes.tolist()[:4] == [0, 1, 2, 4]
    assert tables.word_starts_after_space.tolist()[:4] == [0, 1, 1, 2]
    assert tables.word_starts_after_text.tolist()[:4] == [0, 0, 1, 1]
    assert tables.ends_in_space.tolist()[:4] == [True, False, False, True]


@given(st.lists(st.integers(0, 9), min_size=2, max_size=60))
def test_bytes_and_words_add_up_to_those_of_the_text(ids):
    ids = np.array([0, *ids])  # a document begins after the end of another
    tables = text_tables(Pieces())
    tokens, targets = ids[:-1], ids[1:]
    # Ids without bytes end documents: split the text there, then count as anyone would.
    text = b"".join(Pieces.pieces[i] or b"\r" for i in targets)
    assert tables.bytes[targets].sum() == len(text) - (targets == 0).sum()
    assert tables.words(tokens, targets).sum() == len(text.split())


@given(st.text(st.characters(exclude_categories=["Cs"]), min_size=1))
def test_words_do_not_depend_on_the_tokenizer(text):
    counts = set()
    for tokenizer in (Bytes(256), Characters().fit([text])):
        ids = np.concatenate([[tokenizer.end_of_text], tokenizer.encode(text)])
        counts.add(int(text_tables(tokenizer).words(ids[:-1], ids[1:]).sum()))
    assert counts == {len(text.encode().split())}


def test_an_account_shows_what_a_lossy_tokenizer_loses():
    texts = ["the  cät", "a the\n"] * 300
    assert account(Bytes(), texts) == (600, 300 * (9 + 6), 1200, 300 * (9 + 6), None, 300 * (9 + 6), 1200)
    words = Words().fit(["the cät"])
    # "the  cät" is 9 bytes, its ids " the" and " cät" 9; "a the\n" is 6 bytes, its ids <unk> and " the" 4
    assert account(words, texts) == (600, 300 * (9 + 6), 1200, 300 * 4, 300, 300 * (9 + 4), 300 * (2 + 1))
