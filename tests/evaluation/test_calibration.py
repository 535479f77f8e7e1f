"""Calibration: an example by hand, a loop over bins, scikit-learn's Brier score, SciPy's best temperature."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from lmlab.errors import ConfigError, NonFiniteError
from lmlab.evaluation.calibration import CalibrationReport
from lmlab.evaluation.metrics.calibration import Calibration, fitted_temperature, log_probabilities, of_scores
from lmlab.registry import REGISTRIES
from lmlab.testing.tiny import Tiny


def test_an_example_by_hand() -> None:
    totals = Calibration(bins=5)  # 0.95 and 0.85 fall into the last bin, 0.6 into the third, 0.3 into the second
    totals.add([0.95, 0.85, 0.6, 0.3], [True, False, True, False])
    found = totals.result()
    # last bin: |1/2 - 0.9| * 2 = 0.8; third: |1 - 0.6| = 0.4; second: |0 - 0.3| = 0.3; over 4 predictions
    assert found["ece/bins-5"] == pytest.approx((0.8 + 0.4 + 0.3) / 4)
    assert (found["accuracy"], found["confidence"]) == (0.5, pytest.approx(0.675))
    assert Calibration().result() == {}
    with pytest.raises(NonFiniteError, match="1 of the model's confidences are NaN"):
        totals.add([0.5, float("nan")], [True, False])
    assert totals.result() == found


def drawn(rows: int = 1009, classes: int = 5) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(3)
    scores = random.normal(size=(rows, classes)) * 3
    p = np.exp(log_probabilities(scores / 2.5))  # so that the model is too sure of itself
    return scores, np.array([random.choice(classes, p=row) for row in p])


def test_it_is_that_of_a_loop_and_of_scikit_learn() -> None:
    scores, gold = drawn()
    items = of_scores(scores, gold)
    whole, parts = Calibration(), Calibration()
    whole.add(**items)
    for rows in np.array_split(np.arange(len(gold)), 7):
        part = Calibration()
        part.add(**{name: values[rows] for name, values in items.items()})
        parts.merge(part)
    assert whole.result() == parts.result()
    p = np.exp(scores) / np.exp(scores).sum(1, keepdims=True)
    best, sure, ece = p.argmax(1), p.max(1), 0.0
    for m in range(15):
        inside = (sure > m / 15) & (sure <= (m + 1) / 15)
        if inside.any():
            ece += inside.mean() * abs((best == gold)[inside].mean() - sure[inside].mean())
    found = whole.result()
    assert found["ece/bins-15"] == pytest.approx(ece) and ece > 0.1
    metrics = pytest.importorskip("sklearn.metrics")
    assert found["nats"] == pytest.approx(metrics.log_loss(gold, p))
    each = [metrics.brier_score_loss(gold == c, p[:, c]) for c in range(5)]
    assert found["brier"] == pytest.approx(sum(each))


def test_the_best_temperature_is_the_one_that_scipy_finds_and_calibrates() -> None:
    optimize = pytest.importorskip("scipy.optimize")
    scores, gold = drawn()

    def nats(log_t: float) -> float:
        return float(-log_probabilities(scores / np.exp(log_t))[np.arange(len(gold)), gold].mean())

    wanted = np.exp(optimize.minimize_scalar(nats, bounds=(-4, 4), method="bounded", options={"xatol": 1e-8}).x)
    assert fitted_temperature(scores, gold) == pytest.approx(wanted, rel=1e-4)
    assert wanted == pytest.approx(2.5, rel=0.1)
    before, after = (Calibration(), Calibration())
    before.add(**of_scores(scores, gold))
    after.add(**of_scores(scores / wanted, gold))
    assert after.result()["ece/bins-15"] < before.result()["ece/bins-15"] / 2


def test_a_gold_label_that_training_does_not_have_is_wrong_for_certain() -> None:
    items = of_scores(np.zeros((1, 4)), np.array([-1]))
    assert not items["right"][0] and items["brier"][0] == pytest.approx(1.25) and np.isinf(items["nats"][0])


def test_a_run_is_measured_by_labels_and_by_tokens(tmp_path: Path) -> None:
    program = Tiny(REGISTRIES["loss"].entry("classification"), tmp_path).program()
    state = program.init_state()
    found = CalibrationReport(fit_split="train").bind(program)(state)
    report = REGISTRIES["evaluator"].entry("classification_report").component().bind(program)(state)
    for name in ("accuracy", "nats"):
        assert found[f"valid/{name}"] == pytest.approx(report[f"valid/{name}"], rel=1e-5)
    assert found["valid/scaled/accuracy"] == found["valid/accuracy"] and found["valid/scaled/temperature"] > 0
    with pytest.raises(ConfigError, match="is the split that is measured"):
        CalibrationReport(fit_split="valid").bind(program)
    tokens = Tiny(REGISTRIES["loss"].entry("autoregressive"), tmp_path).program()
    state = tokens.init_state()
    found = CalibrationReport().bind(tokens)(state)
    held_out = REGISTRIES["evaluator"].entry("held_out").component(batches=None).bind(tokens)(state)
    assert found["valid/nats"] == pytest.approx(held_out["valid/nats"], rel=1e-5)
    assert 0 <= found["valid/ece/bins-15"] <= 1
    with pytest.raises(ConfigError, match="and no fit_split"):
        CalibrationReport(fit_split="test").bind(tokens)
