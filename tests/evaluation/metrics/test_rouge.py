"""ROUGE against rouge-score text by text, and against n-grams and subsequences counted here."""

import re
from collections import Counter

import numpy as np
import pytest

from lmlab.evaluation.metrics.summaries import Rouge

scorers = pytest.importorskip("rouge_score.rouge_scorer", reason="rouge-score is missing: pip install 'lmlab[metrics]'")
HYPOTHESES = ["The cats sat on the mat.", "Running dogs, 7 of them", "nothing alike"]
REFERENCES = [["A cat is sitting on the mat"], ["the dog ran", "7 running dogs"], ["quite other words"]]


@pytest.mark.parametrize("stemmer", [False, True])
def test_rouge_is_the_mean_of_rouge_score(stemmer):
    totals = Rouge(stemmer)
    totals.add(HYPOTHESES, REFERENCES)
    found = totals.result()
    scorer = scorers.RougeScorer(["rouge1", "rouge2", "rougeL"], use_stemmer=stemmer)
    scores = [scorer.score_multi(r, h) for r, h in zip(REFERENCES, HYPOTHESES, strict=True)]
    for kind in ("rouge1", "rouge2", "rougeL"):
        for measure, field in (("f1", "fmeasure"), ("precision", "precision"), ("recall", "recall")):
            name = f"{kind}/{measure}-rouge-score{'-stem' if stemmer else ''}"
            assert found.pop(name) == pytest.approx(np.mean([getattr(s[kind], field) for s in scores]), rel=1e-12)
    assert not found


def test_rouge_is_lins_formula():
    hypothesis, reference = "the cat the dog sat", "The cat sat; the bird and the dog sang"
    totals = Rouge()
    totals.add([hypothesis], [[reference]])
    ours, theirs = (re.findall("[a-z0-9]+", text.lower()) for text in (hypothesis, reference))
    for n, kind in ((1, "rouge1"), (2, "rouge2")):
        one, other = (Counter(zip(*(words[i:] for i in range(n)), strict=False)) for words in (ours, theirs))
        expected = 2 * (one & other).total() / (one.total() + other.total())  # F1 = 2 · both / (one + other)
        assert totals.result()[f"{kind}/f1-rouge-score"] == pytest.approx(expected)
    expected = 2 * longest_common(ours, theirs) / (len(ours) + len(theirs))
    assert totals.result()["rougeL/f1-rouge-score"] == pytest.approx(expected)


def longest_common(one, other):
    if not one or not other:
        return 0
    if one[0] == other[0]:
        return 1 + longest_common(one[1:], other[1:])
    return max(longest_common(one[1:], other), longest_common(one, other[1:]))
