"""Reports on labels, tags and spans: what they count, and that they count the same on every layout."""

from __future__ import annotations

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lmlab.errors import ConfigError
from lmlab.evaluation import classification_report, span_report, tagging_report
from lmlab.evaluation.metrics.spans import SpanF1
from lmlab.registry import REGISTRIES
from lmlab.testing.tiny import Tiny


def test_a_confusion_matrix_is_scored_as_scikit_learn_scores_the_predictions() -> None:
    metrics = pytest.importorskip("sklearn.metrics")
    drawn = np.random.default_rng(0)
    gold, predicted = drawn.integers(-1, 4, 97), drawn.integers(0, 4, 97)
    confusion = np.zeros((5, 4), np.int64)
    np.add.at(confusion, (gold, predicted), 1)
    found = classification_report.measures(confusion)
    assert found["accuracy"] == pytest.approx((gold == predicted).mean())
    assert found["f1/macro"] == pytest.approx(metrics.f1_score(gold, predicted, average="macro", zero_division=0))
    assert classification_report.measures(0 * confusion) == {}


def test_without_scikit_learn_there_is_the_accuracy(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(labels: int) -> None:
        raise ConfigError("scikit-learn is not installed")

    monkeypatch.setattr(classification_report, "Classification", missing)
    assert classification_report.measures(np.array([[3, 1], [0, 2], [1, 1]])) == {"accuracy": 5 / 8}


def test_tags_are_counted_over_the_words_and_sentences_that_are_there() -> None:
    names = ("B-a", "B-b", "I-a", "O")
    drawn = np.random.default_rng(1)
    totals, f1, right, frames = tagging_report.Totals(names), SpanF1(), [], []
    words = 0
    for _ in range(3):  # batches
        there = (drawn.random((5, 11)) < 0.6) & (np.arange(5) != 2)[:, None]
        gold, tags = drawn.integers(-1, 4, (5, 11)), drawn.integers(0, 4, (5, 11))
        gold[0] = tags[0]  # one sentence is right
        labels = drawn.integers(0, 2, (2, 5))
        totals.add({"gold": gold, "tags": tags, "there": there, "gold_labels": labels[0], "labels": labels[1]})
        for b in (0, 1, 3, 4):
            theirs = [("I-new" if i < 0 else names[i]) for i in gold[b][there[b]]]
            ours = [names[i] for i in tags[b][there[b]]]
            f1.add([theirs], [ours])
            words += sum(a == c for a, c in zip(theirs, ours, strict=True))
            right.append(theirs == ours)
            frames.append(theirs == ours and labels[0][b] == labels[1][b])
    found = totals.result()
    assert found["f1/seqeval"] == f1.result()["f1/seqeval"] > 0
    assert found["exact_match/tags"] == np.mean(right) > 0
    assert found["exact_match/frame"] == np.mean(frames)
    assert found["accuracy/word"] * totals._means[0].total == words


def test_tags_that_mark_no_spans_have_no_f1() -> None:
    totals = tagging_report.Totals(("DT", "IN", "NN"))
    there = np.ones((2, 3), bool)
    totals.add({"gold": np.zeros((2, 3), int), "tags": np.eye(2, 3, dtype=int), "there": there})
    assert totals.result() == {"accuracy/word": 4 / 6, "exact_match/tags": 0.0}


@pytest.mark.parametrize(("longest", "threshold"), [(30, 0.0), (2, None), (3, 1.5)])
def test_the_best_span_is_that_of_trying_all(longest: int, threshold: float | None) -> None:
    rows, length = 37, 11
    drawn = np.random.default_rng(2)
    ends_at = drawn.integers(0, length + 1, rows)
    there = np.arange(length) < ends_at[:, None]
    types = there & (np.arange(length) >= drawn.integers(1, 6, (rows, 1)))
    first, last = drawn.normal(size=(2, rows, length))
    batch = {"segment_ids": jnp.asarray(there.astype(int)), "type_ids": jnp.asarray(types.astype(int))}
    found = span_report.best_spans(jnp.asarray(first), jnp.asarray(last), batch, longest, threshold)
    for b in range(rows):
        places = np.flatnonzero(types[b])[:-1]  # the last is the separator
        pairs = [(i, j) for i, j in itertools.product(places, places) if i <= j < i + longest]
        best = max(pairs, key=lambda pair: first[b, pair[0]] + last[b, pair[1]], default=(0, 0))
        if threshold is not None and first[b, best[0]] + last[b, best[1]] <= first[b, 0] + last[b, 0] + threshold:
            best = (0, 0)
        assert (int(found[0][b]), int(found[1][b])) == best


def test_agreement_is_that_of_the_sets_of_tokens() -> None:
    found = (jnp.array([2, 0, 3, 5, 0, 4]), jnp.array([4, 0, 6, 6, 0, 4]))
    gold = (jnp.array([3, 0, 3, 1, 2, 0]), jnp.array([7, 0, 6, 2, 3, 0]))
    weights = jnp.array([1, 1, 1, 1, 1, 0.0])
    sums = {name: [float(x) for x in pair] for name, pair in span_report.agreement(found, gold, weights).items()}
    f1, exact = [], []
    for a, b, c, d in zip(*map(np.asarray, (*found, *gold)), strict=True):
        ours, theirs = set(range(a, b + 1)), set(range(c, d + 1))
        f1.append(2 * len(ours & theirs) / (len(ours) + len(theirs)))
        exact.append(ours == theirs)
    assert sums["f1/positions"] == pytest.approx([sum(f1[:5]), 5])
    assert sums["exact_match/positions"] == [sum(exact[:5]), 5]
    assert sums["exact_match/positions-no-answer"] == [1, 1]
    assert sums["f1/positions-has-answer"] == pytest.approx([f1[0] + f1[2] + f1[3] + f1[4], 4])


@pytest.mark.parametrize("layout", [{"mesh.data": 8}, {"partitioner": "@pmap", "pmap.devices": 8}])
def test_rows_come_back_in_their_order_on_every_layout(tmp_path, layout) -> None:
    program = Tiny(REGISTRIES["loss"].entry("autoregressive"), tmp_path).program(**layout)
    batch = program.data.train.batch(0)
    compiled = program.compile_rows(lambda params, rows: {"read": rows["tokens"]}, program.abstract_batch)
    found = compiled(program.init_state(), program.partitioner.place(batch))
    np.testing.assert_array_equal(jax.device_get(found)["read"], batch["tokens"])


@pytest.mark.parametrize("report", ["classification_report", "tagging_report", "span_report"])
def test_a_report_on_what_the_loss_does_not_score_is_refused(tmp_path, report) -> None:
    program = Tiny(REGISTRIES["loss"].entry("autoregressive"), tmp_path).program()
    with pytest.raises(ConfigError, match=f"'{report}' needs a loss that reads .* 'autoregressive' has not"):
        REGISTRIES["evaluator"].entry(report).component().bind(program)
