"""Spans against the package seqeval, and against spans written down."""

import random

import pytest

from lmlab.evaluation.metrics.spans import SpanF1, spans

TAGS = ["O", "B-x", "I-x", "B-y", "I-y", "B-from.city-name", "I-from.city-name"]
WORKED = [
    ("B-x I-x O B-x B-x", [("x", 0, 2), ("x", 3, 4), ("x", 4, 5)], [("x", 0, 2), ("x", 3, 4), ("x", 4, 5)]),
    ("I-x I-x O I-y", [("x", 0, 2), ("y", 3, 4)], []),
    ("B-x I-y I-y O", [("x", 0, 1), ("y", 1, 3)], [("x", 0, 1)]),
    ("B-x I-y B-y", [("x", 0, 1), ("y", 1, 2), ("y", 2, 3)], [("x", 0, 1), ("y", 2, 3)]),
    ("O O", [], []),
    ("B-a-b I-a-b", [("a-b", 0, 2)], [("a-b", 0, 2)]),
]


@pytest.mark.parametrize(("tags", "default", "strict"), WORKED)
def test_spans_of_worked_examples(tags, default, strict):
    assert list(spans(tags.split())) == default
    assert list(spans(tags.split(), strict=True)) == strict


def drawn(seed, sentences=23):
    rng = random.Random(seed)
    gold = [rng.choices(TAGS, k=rng.randint(1, 13)) for _ in range(sentences)]
    return gold, [[tag if rng.random() < 0.7 else rng.choice(TAGS) for tag in sentence] for sentence in gold]


@pytest.mark.parametrize("strict", [False, True])
@pytest.mark.parametrize("seed", range(40))
def test_all_numbers_are_those_of_seqeval(seed, strict):
    seqeval = pytest.importorskip("seqeval.metrics", reason="seqeval is not installed")
    scheme = pytest.importorskip("seqeval.scheme").IOB2
    gold, predicted = drawn(seed)
    totals = SpanF1(strict=strict)
    totals.add(gold, predicted)
    found = totals.result()
    how = {"mode": "strict", "scheme": scheme} if strict else {}
    name = "seqeval-strict" if strict else "seqeval"
    for measure in ("precision", "recall", "f1"):
        score = getattr(seqeval, f"{measure}_score")
        for suffix, average in (("", "micro"), ("-macro", "macro")):
            theirs = score(gold, predicted, average=average, zero_division=0, **how)
            assert found[f"{measure}/{name}{suffix}"] == pytest.approx(theirs, rel=1e-12)


def test_spans_do_not_reach_over_the_end_of_a_sentence():
    totals = SpanF1()
    totals.add([["B-x"], ["I-x"]], [["B-x"], ["O"]])
    found = totals.result()
    assert (found["precision/seqeval"], found["recall/seqeval"]) == (1, 1 / 2)


@pytest.mark.parametrize("tag", ["x", "Bx", "O-x", "", "E-x"])
def test_a_tag_that_is_not_bio_is_refused(tag):
    with pytest.raises(ValueError, match="no BIO tag"):
        list(spans(["O", tag]))


def test_sentences_of_different_lengths_are_refused():
    with pytest.raises(ValueError, match="2 predicted tags for 1 words"):
        SpanF1().add([["O"]], [["O", "O"]])
