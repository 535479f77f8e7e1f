"""Byte-pair encoding and the unigram model over bytes: no text is changed, and the ids are the algorithm's."""

import itertools
import json
import os
import pickle
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from reference_subwords import best_division, bpe, byte_letters, gpt2_words

from lmlab.data.tokenizers import hugging_face
from lmlab.data.tokenizers.byte_level import BytePairs, Unigram, letters
from lmlab.errors import ConfigError, DataError

TEXTS = [
    "The cat sat on the mat; the cats' mats weren't there.\n\n\tThen 12 cats, 345 mats  and naïve 日本 🙂 cafés!" * 5,
    "It's the theatre, they've said: <|endoftext|> isn't [MASK].\r\n" * 7,
]
unicode_text = st.text(st.characters(exclude_categories=["Cs"]))
known_text = st.text(st.sampled_from("theca sm'\n\t12é日🙂<|>."), max_size=60)


@pytest.fixture(scope="module")
def pairs():
    return BytePairs(size=400).fit(TEXTS)


@pytest.fixture(scope="module")
def unigram():
    return Unigram(size=330).fit(TEXTS)


def test_every_byte_has_its_letter():
    assert [letters()[letter] for letter in byte_letters()] == list(range(256))


@given(text=unicode_text | known_text)
def test_any_text_comes_back_and_the_bytes_of_its_ids_are_its_own(pairs, unigram, text):
    for tokenizer in (pairs, unigram):
        ids, pieces = tokenizer.encode(text), tokenizer.token_bytes()
        assert tokenizer.decode(ids) == text
        assert b"".join(pieces[i] for i in ids) == text.encode()
        assert tokenizer.end_of_text not in ids


@given(text=known_text)
def test_the_ids_are_those_of_the_joins_in_their_order(pairs, text):
    model = pairs.to_json()["tokenizer"]["model"]
    ranks = {tuple(pair): rank for rank, pair in enumerate(model["merges"])}
    expected = [model["vocab"][piece] for word in gpt2_words(text) for piece in bpe(word, ranks)]
    assert pairs.encode(text).tolist() == expected


def test_the_joins_are_the_most_frequent_pairs(pairs):
    """Counted anew from the text after every join, as Sennrich et al. 2016 do; of equal counts, any may come first."""
    model = pairs.to_json()["tokenizer"]["model"]
    words = [bpe(word, {}) for text in TEXTS for word in gpt2_words(text)]
    for one, other in model["merges"][:25]:
        counts = {}
        for word in words:
            for pair in itertools.pairwise(word):
                counts[pair] = counts.get(pair, 0) + 1
        assert counts[one, other] == max(counts.values())
        words = [bpe_once(word, (one, other)) for word in words]


def bpe_once(parts, pair):
    joined = []
    for part in parts:
        if joined and (joined[-1], part) == pair:
            joined[-1] += part
        else:
            joined.append(part)
    return joined


@given(text=known_text)
def test_the_division_is_the_most_probable_one(unigram, text):
    scores = dict(unigram.to_json()["tokenizer"]["model"]["vocab"])
    names = byte_letters()
    for word in gpt2_words(text):
        spelled = "".join(names[byte] for byte in word.encode())
        pieces = [unigram.vocabulary.pieces[i] for i in unigram.encode(word)]
        assert sum(scores[piece] for piece in pieces) == pytest.approx(best_division(spelled, scores))


@given(text=known_text | unicode_text)
def test_offsets_are_the_characters_that_hold_the_bytes(pairs, text):
    pieces, place = pairs.token_bytes(), 0
    for i, (start, stop) in zip(pairs.encode(text), pairs.offsets(text), strict=True):
        before, through = text.encode()[:place], text.encode()[: place + len(pieces[i])]
        assert start == len(before.decode(errors="ignore"))
        whole = through.decode(errors="ignore")
        assert stop == len(whole) + (len(whole.encode()) < len(through))
        place += len(pieces[i])


@given(st.lists(st.text(st.sampled_from("thecat12é日.'"), min_size=1, max_size=9)))
def test_words_are_encoded_as_in_their_text(pairs, words):
    found = pairs.encode_words(words)
    assert all(len(ids) for ids in found)
    for word, ids in zip(words, found, strict=True):
        assert pairs.decode(ids).strip(" ") == word
    assert np.concatenate([*found, []]).tolist() == pairs.encode(" ".join(words)).tolist()


def test_specials_stand_behind_all_other_ids_and_no_text_makes_them():
    tokenizer = BytePairs(size=300, specials=("mask", "separator")).fit(TEXTS)
    assert tokenizer.vocab_size == 300
    assert tokenizer.special_ids == {"end_of_text": 297, "mask": 298, "separator": 299}
    again = pickle.loads(pickle.dumps(tokenizer))  # a worker process gets it so
    for each in (tokenizer, again, tokenizer.from_json(tokenizer.to_json())):
        ids = each.encode("a<|endoftext|><|mask|> <|separator|>")
        assert not set(ids.tolist()) & {297, 298, 299} and each.decode(ids) == "a<|endoftext|><|mask|> <|separator|>"
    assert tokenizer.decode([297, 298, *tokenizer.encode("a")]) == "a" and not hasattr(tokenizer, "unknown")


def test_long_texts_are_cut_where_it_makes_no_difference(pairs, unigram, monkeypatch):
    text = " ".join(TEXTS * 9)
    whole = [(t.encode(text), t.offsets(text)) for t in (pairs, unigram)]
    monkeypatch.setattr(hugging_face, "LONG", 97)
    assert len(list(pairs._parts(text))) > 30
    for tokenizer, (ids, offsets) in zip((pairs, unigram), whole, strict=True):
        np.testing.assert_array_equal(tokenizer.encode(text), ids)
        np.testing.assert_array_equal(tokenizer.offsets(text), offsets)
    assert BytePairs(size=400).fit(TEXTS).to_json() == pairs.to_json()


@pytest.mark.parametrize("kind", ["BytePairs(size=320)", "Unigram(size=320)", "WordPiece(size=150)"])
def test_every_process_makes_the_same_vocabulary_of_the_same_texts(kind):
    """The library's own hashing and summing orders change from process to process."""
    program = (
        "import hashlib, json; from lmlab.data.tokenizers.byte_level import *; "
        "from lmlab.data.tokenizers.wordpiece import *; "
        f"found = {kind}.fit({TEXTS!r}).to_json(); print(hashlib.sha256(json.dumps(found).encode()).hexdigest())"
    )
    done = [subprocess.run([sys.executable, "-c", program], capture_output=True, text=True) for _ in range(3)]
    assert len({one.stdout for one in done}) == 1 and len(done[0].stdout) == 65, done[0].stderr


def test_a_saved_vocabulary_survives_json(pairs, unigram):
    for tokenizer in (pairs, unigram):
        again = tokenizer.from_json(json.loads(json.dumps(tokenizer.to_json())))
        assert again.to_json() == tokenizer.to_json() and again.token_bytes() == tokenizer.token_bytes()
        np.testing.assert_array_equal(again.encode(TEXTS[0]), tokenizer.encode(TEXTS[0]))


def test_a_forked_process_encodes_without_a_word_of_warning():
    program = (
        "import os, sys\nfrom lmlab.data.tokenizers.byte_level import BytePairs\n"
        f"t = BytePairs(size=300).fit({TEXTS!r}); t.encode_batch(['a cat'] * 99)\n"
        "child = os.fork()\n"
        "if child == 0:\n    os._exit(0 if len(t.encode_batch(['a cat'] * 99)) == 99 else 1)\n"
        "sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))"
    )
    environment = {name: value for name, value in os.environ.items() if name != "TOKENIZERS_PARALLELISM"}
    done = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True)
    assert done.returncode == 0 and not done.stderr


def test_the_library_is_imported_on_use_and_jax_never():
    program = (
        "import sys, lmlab.data.tokenizers.byte_level, lmlab.data.tokenizers.hf, lmlab.data.tokenizers.wordpiece, "
        "lmlab.data.tokenizers.sentence_piece, lmlab.data.tokenizers.words\n"
        "assert not {'tokenizers', 'sentencepiece', 'jax'} & set(sys.modules)\n"
        "lmlab.data.tokenizers.byte_level.BytePairs(size=300).fit(['some text'])\nassert 'jax' not in sys.modules"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_mistakes_are_named(pairs):
    with pytest.raises(DataError, match="'bpe' has no vocabulary yet"):
        BytePairs().encode("a")
    with pytest.raises(DataError, match="lone surrogate U\\+D800"):
        pairs.encode_batch(["a", "\ud800"])
    with pytest.raises(DataError, match="lone surrogate U\\+D800"):
        BytePairs().fit(["a", "\ud800"])
    with pytest.raises(DataError, match="'unigram' found no text"):
        Unigram().fit(["", ""])
    with pytest.raises(ConfigError, match="256 bytes and 3 specials need 259"):
        BytePairs(size=258, specials=("mask", "pad")).fit(TEXTS)
    with pytest.raises(ConfigError, match="'mask' is there twice"):
        BytePairs(specials=("mask", "mask")).fit(TEXTS)
