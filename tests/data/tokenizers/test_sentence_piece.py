"""SentencePiece: trained and loaded models, and what is promised of them."""

import numpy as np
import pytest

from lmlab.data.tokenizers.sentence_piece import SentencePiece
from lmlab.errors import DataError

sentencepiece = pytest.importorskip("sentencepiece", reason="pip install 'lmlab[sentencepiece]'")

TEXTS = ["The cat sat on the mat, and the cats sat on mats.\nNaïve cafés in 日本!\n" * 9]


@pytest.fixture(scope="module", params=["unigram", "bpe"])
def tokenizer(request):
    return SentencePiece(size=331, algorithm=request.param, specials=("mask",)).fit(TEXTS)


def test_ids_are_those_of_the_library(tokenizer):
    model = sentencepiece.SentencePieceProcessor(model_proto=tokenizer.export())
    for text in (*TEXTS, "a  dog", "<mask> </s> <0x41>", ""):
        assert tokenizer.encode(text).tolist() == model.encode(text)
        assert tokenizer.decode(tokenizer.encode(text)) == model.decode(model.encode(text))
    assert tokenizer.special_ids == {"unknown": 0, "end_of_text": 1, "mask": 2}


def test_the_bytes_are_the_normalised_text_with_a_space_before_it(tokenizer):
    pieces = tokenizer.token_bytes()
    ids = tokenizer.encode("the  ﬁne\ncat <mask> 🙂")
    assert b"".join(pieces[i] for i in ids).decode() == " the fine cat <mask> 🙂"
    assert len(pieces) == tokenizer.vocab_size


def test_offsets_cover_the_text(tokenizer):
    text = "the  ﬁne\ncat 🙂日本"
    covered = {place for start, stop in tokenizer.offsets(text) for place in range(start, stop)}
    assert covered == set(range(len(text)))


def test_a_model_file_is_used_as_it_is(tokenizer, tmp_path):
    (tmp_path / "a.model").write_bytes(tokenizer.export())
    again = SentencePiece(model=str(tmp_path / "a.model")).fit([])
    assert again.to_json() == tokenizer.to_json()
    np.testing.assert_array_equal(again.encode("the cats"), tokenizer.encode("the cats"))
    (tmp_path / "b.model").write_bytes(b"no model")
    with pytest.raises(DataError, match=r"b\.model is no SentencePiece model"):
        _ = SentencePiece(model=str(tmp_path / "b.model")).fit([]).vocab_size


def test_texts_of_which_no_model_can_be_made_are_an_error():
    with pytest.raises(DataError, match="made no model of the training texts"):
        SentencePiece(size=331).fit([])
    with pytest.raises(DataError, match="lone surrogate"):
        SentencePiece(size=331).fit(["\ud800"])
