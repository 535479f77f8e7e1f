"""BLEU and chrF against sacrebleu over the whole corpus at once, and against Papineni's formula."""

import math
import random
from collections import Counter

import pytest

from lmlab.errors import DataError
from lmlab.evaluation.metrics.translation import BLEU, ChrF

sacrebleu = pytest.importorskip("sacrebleu", reason="sacrebleu is not installed: pip install 'lmlab[metrics]'")
WORDS = ["The", "cat's", "mat,", "a", "dog;", "sat", "on.", "3.14", "was", "(not)", '"here"', "today", "!"]


def corpus(seed, n=31, references=2):
    rng = random.Random(seed)
    refs = [[" ".join(rng.choices(WORDS, k=rng.randint(3, 12))) + "." for _ in range(references)] for _ in range(n)]
    return [" ".join(w for w in rng.choice(ref).split() if rng.random() < 0.8) for ref in refs], refs


def streamed(metric, hypotheses, references):
    for start in range(0, len(hypotheses), 4):
        metric.add(hypotheses[start : start + 4], references[start : start + 4])
    return metric.result()


@pytest.mark.parametrize(("tokenize", "lowercase"), [("13a", False), ("intl", False), ("char", True), ("none", False)])
def test_bleu_is_that_of_sacrebleu(tokenize, lowercase):
    hypotheses, references = corpus(3)
    whole = sacrebleu.corpus_bleu(
        hypotheses, list(zip(*references, strict=True)), tokenize=tokenize, lowercase=lowercase, force=True
    )
    name = f"bleu/sacrebleu-{tokenize}{'-lc' if lowercase else ''}"
    assert streamed(BLEU(tokenize, lowercase), hypotheses, references) == {name: whole.score}


@pytest.mark.parametrize("word_order", [0, 2])
def test_chrf_is_that_of_sacrebleu(word_order):
    hypotheses, references = corpus(4)
    whole = sacrebleu.corpus_chrf(hypotheses, list(zip(*references, strict=True)), word_order=word_order)
    name = "chrf++/sacrebleu" if word_order else "chrf/sacrebleu"
    assert streamed(ChrF(word_order), hypotheses, references) == {name: whole.score}


def test_bleu_is_papinenis_formula():
    hypotheses, references = corpus(5, references=1)
    right, total = Counter(), Counter()
    for hypothesis, (reference,) in zip(hypotheses, references, strict=True):
        for n in range(1, 5):
            ours, theirs = (
                Counter(zip(*(text.split()[i:] for i in range(n)), strict=False)) for text in (hypothesis, reference)
            )
            right[n] += (ours & theirs).total()
            total[n] += ours.total()
    lengths = [sum(len(text.split()) for text in side) for side in (hypotheses, [r for (r,) in references])]
    brevity = min(0.0, 1 - lengths[1] / lengths[0])
    bleu = 100 * math.exp(brevity + sum(math.log(right[n] / total[n]) for n in range(1, 5)) / 4)
    assert streamed(BLEU("none"), hypotheses, references)["bleu/sacrebleu-none"] == pytest.approx(bleu, rel=1e-9)


def test_rows_may_have_different_numbers_of_references():
    hypotheses, references = ["a b c d e", "f g h i j"], [["a b c d x", "a b c d e"], ["f g h i j"]]
    assert streamed(BLEU(), hypotheses, references)["bleu/sacrebleu-13a"] == pytest.approx(100)
    assert streamed(ChrF(), hypotheses, references)["chrf/sacrebleu"] == pytest.approx(100)


@pytest.mark.parametrize("make", [BLEU, ChrF])
def test_tokenised_text_is_refused_unless_forced(make):
    hypotheses, references = ["He came home ."] * 3, [["He came home ."], ["She left ."], ["no mark at all"]]
    with pytest.raises(DataError, match="2 of 3 references"):
        streamed(make(), hypotheses, references)
    assert streamed(make(force=True), hypotheses, references)


def test_an_unknown_tokenizer_and_bare_references_are_refused():
    with pytest.raises(Exception, match="13b"):
        BLEU("13b")
    with pytest.raises(ValueError, match="sequence of references"):
        BLEU().add(["a"], ["a"])
    with pytest.raises(ValueError, match="word_order"):
        ChrF(word_order=1)
