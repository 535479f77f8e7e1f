"""Corpora of every kind of text example: splits, labels and tags, fingerprints."""

import hashlib

import pytest

from lmlab.data.corpus import Corpus, md5_modulo
from lmlab.errors import DataError
from lmlab.examples import Document, LabelledText, TaggedText, Text, TextPair


def corpus_of(*examples, split="train"):
    return Corpus.of("mine", ((split, example) for example in examples), "Write more.")


def test_labels_and_tags_are_those_of_the_training_split_sorted():
    train = [TaggedText(("a", "b"), ("O", "I"), "y"), TaggedText(("c",), ("B",), "x"), TaggedText(("d",), ("O",))]
    corpus = Corpus.of("mine", [*(("train", e) for e in train), ("test", TaggedText(("e",), ("Z",), "z"))], "")
    assert corpus.labels == ("x", "y") and corpus.tags == ("B", "I", "O")
    assert corpus_of(LabelledText("a", "q"), LabelledText("b", "p")).labels == ("p", "q")
    assert corpus_of(Text("a")).labels == corpus_of(Text("a")).tags == ()


def test_a_fingerprint_counts_examples_and_bytes():
    def facts(*examples):
        found = corpus_of(*examples).fingerprint()["train"]
        return {name: value for name, value in found.items() if name != "sha256"}

    assert facts(Text("é"), Text("b")) == {"documents": 2, "bytes": 3}
    assert facts(Document(("é", "b"))) == {"documents": 1, "bytes": 4}  # joined by a line feed
    assert facts(TextPair("é", "b")) == {"examples": 1, "bytes": 3}
    assert facts(LabelledText("é", "label", "b")) == {"examples": 1, "bytes": 3}
    assert facts(TaggedText(("é", "b"), ("O", "O"))) == {"examples": 1, "bytes": 4}


def test_the_fingerprint_of_texts_is_the_sha256_of_each_after_its_length():
    parts = b"".join(len(text).to_bytes(8, "little") + text for text in (b"one", "é".encode()))
    assert corpus_of(Text("one"), Text("é")).fingerprint()["train"]["sha256"] == hashlib.sha256(parts).hexdigest()


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (LabelledText("a", "b"), LabelledText("b", "a")),
        (LabelledText("a", "x"), LabelledText("a", "y")),
        (LabelledText("a", "x"), LabelledText("a", "x", "")),
        (TextPair("a b", "c"), TextPair("a", "b c")),
        (TaggedText(("a", "b"), ("O", "O")), TaggedText(("a b",), ("O",))),
        (TaggedText(("a",), ("O",)), TaggedText(("a",), ("O",), "x")),
    ],
)
def test_any_change_but_of_the_source_is_another_fingerprint(one, other):
    assert corpus_of(one).fingerprint() != corpus_of(other).fingerprint()
    moved = type(one)(**{**vars(one), "source": "elsewhere"})
    assert corpus_of(one).fingerprint() == corpus_of(moved).fingerprint()


def test_a_corpus_without_text_or_without_a_split_says_so():
    with pytest.raises(DataError, match=r"mine: there is no text in it\. Write more\."):
        corpus_of(Text(""), LabelledText("", "x"))
    with pytest.raises(DataError, match=r"no documents in the split 'test'; there is valid \(1\). Write more."):
        corpus_of(TextPair("a", "b"), split="valid").split("test")


def test_the_md5_is_one_number():
    assert md5_modulo("", 10) == 0xD41D8CD98F00B204E9800998ECF8427E % 10  # RFC 1321, appendix A.5
    assert md5_modulo("abc", 20) == 0x900150983CD24FB0D6963F7D28E17F72 % 20
