"""Words as the papers count them, against counting by hand."""

from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lmlab.data.accounting import text_tables
from lmlab.data.tokenizers.words import Words
from lmlab.errors import ConfigError, DataError

SPACES = " \t\n\r\v\f"
texts_of_words = st.text(st.sampled_from("abé\u00a0\u2028\x1c" + SPACES), max_size=40)


def words_of(text):
    """Letter by letter: what stands between the six characters of white space."""
    found = [""]
    for letter in text:
        found = [*found, ""] if letter in SPACES else [*found[:-1], found[-1] + letter]
    return [word for word in found if word]


@given(st.lists(texts_of_words, min_size=1), st.integers(1, 3), st.integers(3, 9))
def test_ids_are_ranks_by_frequency_and_rare_words_are_unknown(texts, min_count, size):
    counts = Counter(word for text in texts for word in words_of(text))
    ranked = sorted(counts, key=lambda word: (-counts[word], word.encode()))
    kept = [word for word in ranked if counts[word] >= min_count][: size - 2]
    if not kept:
        with pytest.raises(DataError, match="found no word that occurs"):
            Words(min_count=min_count, size=size).fit(texts)
        return
    tokenizer = Words(min_count=min_count, size=size).fit(texts)
    assert tokenizer.vocab_size == 2 + len(kept)
    for text in texts:
        expected = [2 + kept.index(word) if word in kept else 1 for word in words_of(text)]
        assert tokenizer.encode(text).tolist() == expected


def test_the_example_of_the_docstring():
    tokenizer = Words().fit(["the cat saw the dog"])
    assert tokenizer.encode("the  bird saw").tolist() == [2, 1, 5]
    assert tokenizer.decode([2, 1, 5, 0]) == "the <unk> saw"


def test_mikolovs_vocabulary_counts_the_ends_of_lines_and_the_unknown():
    """A text in the form of his Penn Treebank, where `<unk>` is written out: its types and `<eos>` are all there is."""
    text = " no it was n't <unk> monday \n but while the <unk> was monday \n"
    tokenizer = Words(end_of_sentence=True).fit([text])
    assert tokenizer.vocab_size == len(set(text.split())) + 1 + 1  # <eos>, and the end of the document
    ids = tokenizer.encode(text)
    assert len(ids) == len(text.split()) + 2 and (ids == tokenizer.unknown).sum() == 2
    assert tokenizer.decode(ids) == "no it was n't <unk> monday\nbut while the <unk> was monday\n"


def test_bengios_cut_merges_words_that_occur_three_times_or_less():
    text = "a " * 5 + "b " * 4 + "c " * 3 + "d "
    assert Words(min_count=4).fit([text]).encode("a b c d").tolist() == [2, 3, 1, 1]


@given(text=texts_of_words)
def test_offsets_are_where_the_words_stand(text):
    tokenizer = Words().fit(["a b é"])
    assert [text[start:stop] for start, stop in tokenizer.offsets(text)] == words_of(text)
    lines = Words(end_of_sentence=True).fit(["a b é"])
    assert len(lines.offsets(text)) == len(lines.encode(text)) == len(words_of(text)) + text.count("\n")


@given(text=texts_of_words)
def test_a_word_of_text_is_a_word_of_the_metrics(text):
    tokenizer = Words().fit([text, "a"])
    ids = np.array([0, *tokenizer.encode(text)])
    tables = text_tables(tokenizer)
    assert tables.words(ids[:-1], ids[1:]).sum() == len(words_of(text))


def test_bytes_are_words_with_the_space_before():
    tokenizer = Words(end_of_sentence=True, specials=("mask",)).fit(["ab é\nab"])
    assert tokenizer.token_bytes() == [b"", b"", b"", b"\n", b" ab", " é".encode()]
    assert tokenizer.special_ids == {"end_of_text": 0, "unknown": 1, "mask": 2}


def test_lower_case_is_chosen():
    assert Words().fit(["The the THE"]).vocab_size == 5
    assert Words(lower_case=True).fit(["The the THE"]).vocab_size == 3


def test_no_room_is_an_error():
    with pytest.raises(ConfigError, match="4 ids are taken"):
        Words(size=4, end_of_sentence=True, specials=("mask",)).fit(["a"])
