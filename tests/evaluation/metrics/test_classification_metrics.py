"""Accuracy, precision, recall and F1 against scikit-learn on the labels themselves."""

import numpy as np
import pytest

from lmlab.evaluation.metrics.classification import Accuracy, Classification

metrics = pytest.importorskip("sklearn.metrics", reason="scikit-learn is not installed: pip install 'lmlab[metrics]'")
C = 7


def drawn(seed, n=211, unseen=0.0):
    rng = np.random.default_rng(seed)
    gold, predicted = rng.integers(0, C - 1, n), rng.integers(1, C, n)  # label 0 is never predicted, C - 1 never gold
    right, strange = rng.random(n) < 0.6, rng.random(n) < unseen
    return np.where(strange, -1, gold), np.where(right & (gold > 0), gold, predicted)


@pytest.mark.parametrize("unseen", [0.0, 0.1])
@pytest.mark.parametrize("seed", range(5))
def test_all_numbers_are_those_of_scikit_learn(seed, unseen):
    gold, predicted = drawn(seed, unseen=unseen)
    totals = Classification(C)
    totals.add(gold.reshape(1, -1), predicted.reshape(1, -1))
    found = totals.result()
    assert found["accuracy"] == metrics.accuracy_score(gold, predicted)
    for average in ("micro", "macro"):
        for name in ("precision", "recall", "f1"):
            score = getattr(metrics, f"{name}_score")(gold, predicted, average=average, zero_division=0)
            assert found[f"{name}/{average}"] == pytest.approx(score, rel=1e-12)


def test_an_unseen_gold_label_is_an_error():
    totals = Classification(3)
    totals.add([0, 1, -1, -1], [0, 1, 0, 1])
    found = totals.result()
    assert found["accuracy"] == found["f1/micro"] == 0.5
    assert found["recall/macro"] == pytest.approx((1 + 1 + 0) / 3)  # of label 0, of label 1, of the unseen
    assert found["precision/macro"] == pytest.approx((0.5 + 0.5 + 0) / 3)


def test_a_label_that_is_never_predicted_has_precision_0():
    totals = Classification(3)
    totals.add([0, 0, 2], [0, 0, 0])
    assert totals.result()["precision/macro"] == pytest.approx((2 / 3 + 0) / 2)  # label 1 does not occur


def test_accuracy_of_words_leaves_out_padding():
    gold = np.array([[1, 2, 3], [4, 0, 0]])
    predicted = np.array([[1, 2, 0], [4, 0, 0]])
    totals = Accuracy("accuracy/word")
    totals.add(gold, predicted, np.array([[1, 1, 1], [1, 0, 0]], np.float32))
    assert totals.result() == {"accuracy/word": 3 / 4}


@pytest.mark.parametrize(("gold", "predicted"), [([3], [0]), ([0], [3]), ([-2], [0]), ([0], [-1])])
def test_an_id_that_is_no_label_is_refused(gold, predicted):
    with pytest.raises(ValueError, match="below 3"):
        Classification(3).add(gold, predicted)
