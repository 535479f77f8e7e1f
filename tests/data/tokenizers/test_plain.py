"""Bytes and characters: what goes in comes out, or is refused."""

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lmlab.data.tokenizers.plain import Bytes, Characters
from lmlab.errors import DataError

unicode_text = st.text(st.characters(exclude_categories=["Cs"]))


@given(unicode_text)
def test_bytes_with_an_id_of_their_own_for_the_end_give_back_any_text(text):
    tokenizer = Bytes(end_of_text=256)
    assert tokenizer.decode([*tokenizer.encode(text), 256]) == text


@given(unicode_text.filter(lambda text: "\0" not in text))
def test_bytes_in_256_ids_give_back_any_text_without_nul(text):
    ids = Bytes().encode(text)
    assert Bytes().vocab_size == 256 and ids.dtype == np.int32
    assert ids.tolist() == list(text.encode())
    assert Bytes().decode(ids) == text


def test_a_nul_is_refused_where_it_would_end_the_document():
    with pytest.raises(DataError, match=r"byte 3 is NUL.*end_of_text = 256"):
        Bytes().encode("é!\0")


@pytest.mark.parametrize("tokenizer", [Bytes(), Characters().fit(["a"])])
def test_half_a_surrogate_pair_is_refused(tokenizer):
    with pytest.raises(DataError, match="character 1 is the lone surrogate U\\+D800"):
        tokenizer.encode("a\ud800")


def test_bytes_that_are_no_utf8_come_out_as_replacement_characters():
    assert Bytes().decode([0xC3, 97, 0]) == "\ufffda"


@given(unicode_text.filter(bool))
def test_characters_give_back_the_text_they_were_fitted_on(text):
    tokenizer = Characters().fit([text])
    assert tokenizer.decode(tokenizer.encode(text)) == text
    assert tokenizer.vocab_size == 2 + len(set(text))


def test_characters_are_numbered_in_code_order_after_the_special_ids():
    tokenizer = Characters().fit(["ban", "ana"])
    assert tokenizer.encode("nab!").tolist() == [4, 2, 3, tokenizer.unknown]
    assert tokenizer.decode([4, 2, 3, 1, 0]) == "nab\ufffd"


def test_rare_characters_become_unknown():
    tokenizer = Characters(min_count=2).fit(["aab", "\N{SNOWMAN}bb"])
    assert tokenizer.encode("a\N{SNOWMAN}b").tolist() == [2, 1, 3]


def test_counts_add_up_over_many_texts():
    texts = ["x" * 600_000, "y" * 600_000, "xz"]
    assert Characters(min_count=2).fit(texts).encode("xyz").tolist() == [2, 3, 1]


@given(unicode_text.filter(bool))
def test_the_bytes_behind_the_ids_are_the_text(text):
    for tokenizer in (Bytes(256), Characters().fit([text])):
        pieces = tokenizer.token_bytes()
        assert len(pieces) == tokenizer.vocab_size
        assert b"".join(pieces[i] for i in tokenizer.encode(text)) == text.encode()
        assert pieces[tokenizer.end_of_text] == b""


@given(unicode_text.filter(bool))
def test_a_saved_vocabulary_is_the_same_vocabulary(text):
    for tokenizer in (Bytes(256), Characters(min_count=1).fit([text])):
        saved = json.loads(json.dumps(tokenizer.to_json()))
        again = type(tokenizer)().from_json(saved)
        np.testing.assert_array_equal(again.encode(text), tokenizer.encode(text))
        assert again.to_json() == tokenizer.to_json()


def test_an_unfitted_vocabulary_is_an_error():
    with pytest.raises(DataError, match="no vocabulary yet"):
        Characters().encode("a")
    with pytest.raises(DataError, match="no character that occurs 3 times"):
        Characters(min_count=3).fit(["aabb"])
