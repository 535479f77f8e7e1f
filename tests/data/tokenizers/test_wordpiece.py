"""WordPiece: BERT's ids by BERT's algorithm, and what it loses."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from reference_subwords import basic_tokens, wordpiece

from lmlab.data.tokenizers.wordpiece import WordPiece
from lmlab.errors import ConfigError

TEXTS = ["The unaffable cat sat; the cats' mats weren't unaffordable. Then 12 cats (and 3 mats) played, playing!\n" * 4]


@pytest.fixture(scope="module")
def tokenizer():
    return WordPiece(size=120).fit(TEXTS)


def test_the_first_ids_are_berts_specials(tokenizer):
    assert tokenizer.special_ids == {
        "pad": 0, "unknown": 1, "classify": 2, "separator": 3, "mask": 4, "end_of_text": 3
    }  # fmt: skip
    assert tokenizer.vocabulary.pieces[:5] == ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    assert tokenizer.vocab_size <= 120 and tokenizer.unknown == 1


@given(text=st.text(st.sampled_from("unafblectsTHEply 12.,;'([MASK])Z\n"), max_size=80))
def test_words_are_divided_into_the_longest_known_pieces(tokenizer, text):
    pieces = tokenizer.vocabulary.pieces
    expected = [piece for word in basic_tokens(text, lower=True) for piece in wordpiece(word, set(pieces))]
    assert [pieces[i] for i in tokenizer.encode(text)] == expected


def test_pieces_are_made_of_the_texts_and_joined_by_frequency(tokenizer):
    words = basic_tokens(" ".join(TEXTS), lower=True)
    seen = {word[i:j] for word in words for i in range(len(word)) for j in range(i + 1, len(word) + 1)}
    pieces = tokenizer.vocabulary.pieces[5:]
    assert {piece.removeprefix("##") for piece in pieces} <= seen
    assert {"the", "##s", "cat", "##aff"} & set(pieces) >= {"the", "##s"} and len(set(pieces)) == len(pieces)
    assert {word[0] for word in words} | {f"##{letter}" for word in words for letter in word} <= set(pieces)


def test_case_and_spaces_are_lost_unless_case_is_kept(tokenizer):
    assert tokenizer.decode(tokenizer.encode("The  cats,\nplayed!")) == "the cats , played !"
    cased = WordPiece(size=150, lower_case=False).fit(TEXTS)
    assert cased.decode(cased.encode("The  cats,\nplayed!")) == "The cats , played !"
    assert tokenizer.lossy


def test_the_bytes_are_those_of_the_words_with_the_space_before_each(tokenizer):
    pieces = tokenizer.token_bytes()
    behind = b"".join(pieces[i] for i in tokenizer.encode("The cats, played"))
    assert behind == b" the cats , played"
    assert pieces[tokenizer.unknown] == pieces[4] == b""


def test_rare_characters_are_unknown(tokenizer):
    few = WordPiece(size=60, alphabet=12).fit([*TEXTS, "ж"])
    assert few.encode("ж").tolist() == [few.unknown] == few.encode_words(["\u200b"])[0].tolist()
    assert few.encode("a").tolist() != [few.unknown]


def test_offsets_are_those_of_the_text_as_it_was_written(tokenizer):
    text = "  Thé\tCATS,played"
    found = [text[start:stop] for start, stop in tokenizer.offsets(text)]
    assert "".join(found) == "ThéCATS,played"


def test_settings_that_cannot_be_are_named():
    with pytest.raises(ConfigError, match="'unknown' must be among them"):
        WordPiece(specials=("separator",)).fit(TEXTS)
    with pytest.raises(ConfigError, match=r"need \d+\. Or lower wordpiece\.alphabet"):
        WordPiece(size=20).fit(TEXTS)
