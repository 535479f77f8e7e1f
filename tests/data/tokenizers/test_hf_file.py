"""Any tokenizer.json: its ids, its special tokens by role, and nothing parsed out of text."""

import hashlib
import json

import pytest

from lmlab.data.tokenizers.byte_level import BytePairs
from lmlab.data.tokenizers.hf import TokenizerFile
from lmlab.data.tokenizers.wordpiece import WordPiece
from lmlab.errors import ConfigError, DataError

TEXTS = ["The cat sat on the mat; <|endoftext|> the cats' mats.\n" * 6]


def token(i, content, special=True):
    flags = dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized"), False)
    return {"id": i, "content": content, "special": special, **flags}


def word_level(added, vocabulary, **others):
    return {
        "version": "1.0", "truncation": None, "padding": None, "added_tokens": added, "normalizer": None,
        "pre_tokenizer": {"type": "WhitespaceSplit"}, "post_processor": None, "decoder": None,
        "model": {"type": "WordLevel", "vocab": vocabulary, "unk_token": "<unk>"}, **others,
    }  # fmt: skip


@pytest.fixture
def written(tmp_path):
    def write(content):
        path = tmp_path / "tokenizer.json"
        path.write_bytes(content if isinstance(content, bytes) else json.dumps(content).encode())
        return str(path)

    return write


@pytest.mark.parametrize("trained", [BytePairs(size=300, specials=("mask",)), WordPiece(size=100)])
def test_what_was_trained_is_read_again_with_its_roles(trained, written):
    trained = trained.fit(TEXTS)
    read = TokenizerFile(written(trained.export())).fit([])
    assert read.special_ids == trained.special_ids and read.vocab_size == trained.vocab_size
    assert read.token_bytes() == trained.token_bytes()
    for text in (*TEXTS, "[MASK] <|mask|> zürich"):
        assert read.encode(text).tolist() == trained.encode(text).tolist()
        assert read.offsets(text).tolist() == trained.offsets(text).tolist()


def test_a_run_needs_the_file_no_more(written, tmp_path):
    path = written(BytePairs(size=300).fit(TEXTS).export())
    saved = TokenizerFile(path).fit([]).to_json()
    assert saved["sha256"] == hashlib.sha256((tmp_path / "tokenizer.json").read_bytes()).hexdigest()
    (tmp_path / "tokenizer.json").unlink()
    again = TokenizerFile(path).from_json(json.loads(json.dumps(saved)))
    assert again.decode(again.encode("the cat")) == "the cat" and again.to_json() == saved


def test_truncation_and_padding_of_the_file_are_switched_off(written):
    cut = {"direction": "Right", "max_length": 2, "strategy": "LongestFirst", "stride": 0}
    fill = {"strategy": {"Fixed": 9}, "direction": "Right", "pad_to_multiple_of": None, "pad_id": 0,
            "pad_type_id": 0, "pad_token": "</s>"}  # fmt: skip
    whole = word_level([token(0, "</s>")], {"</s>": 0, "<unk>": 1, "a": 2}, truncation=cut, padding=fill)
    tokenizer = TokenizerFile(written(whole)).fit([])
    assert tokenizer.encode("a b a").tolist() == [2, 1, 2] and tokenizer.unknown == 1
    assert [ids.tolist() for ids in tokenizer.encode_batch(["a", "a a a"])] == [[2], [2, 2, 2]]


def test_roles_can_be_named(written):
    whole = word_level([token(0, "<s>"), token(1, "<stop>")], {"<s>": 0, "<stop>": 1, "<unk>": 2, "a": 3})
    path = written(whole)
    with pytest.raises(ConfigError, match=r"its special tokens are <unk>, <s>, <stop>\. Name one: hf\.roles"):
        TokenizerFile(path).fit([])
    found = TokenizerFile(path, roles={"end_of_text": "<stop>", "classify": "<s>"}).fit([]).special_ids
    assert found == {"end_of_text": 1, "classify": 0, "unknown": 2}
    with pytest.raises(ConfigError, match=r"has no token '<stopp>'\. Did you mean '<stop>'"):
        TokenizerFile(path, roles={"end_of_text": "<stopp>"}).fit([])


def test_pieces_of_a_sentencepiece_like_file_are_its_bytes(written):
    vocabulary = {"</s>": 0, "<unk>": 1, "▁the": 2, "▁": 3, "<0xC3>": 4, "<0xA9>": 5, "t": 6}
    whole = word_level([token(0, "</s>")], vocabulary) | {
        "pre_tokenizer": {"type": "Metaspace", "replacement": "▁", "prepend_scheme": "always", "split": True},
        "decoder": {"type": "Sequence", "decoders": [
            {"type": "Replace", "pattern": {"String": "▁"}, "content": " "}, {"type": "ByteFallback"}, {"type": "Fuse"},
        ]},
        "model": {"type": "BPE", "vocab": vocabulary, "merges": [], "unk_token": "<unk>", "byte_fallback": True},
    }  # fmt: skip
    tokenizer = TokenizerFile(written(whole)).fit([])
    assert tokenizer.token_bytes() == [b"", b"", b" the", b" ", b"\xc3", b"\xa9", b"t"]
    assert tokenizer.encode("té").tolist() == [3, 6, 4, 5] and tokenizer.decode([3, 6, 4, 5]) == " té"


def test_what_is_no_tokenizer_is_named(written, tmp_path):
    with pytest.raises(DataError, match=r"nowhere\.json cannot be read: No such file"):
        TokenizerFile(str(tmp_path / "nowhere.json")).fit([])
    with pytest.raises(DataError, match=r"tokenizer\.json: this is no tokenizer\.json that the library reads"):
        TokenizerFile(written({"a": 1})).fit([])
