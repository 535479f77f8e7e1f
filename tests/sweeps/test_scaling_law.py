"""The fit of L(N, D) = E + A / N^alpha + B / D^beta: it gives back known laws, and is the minimum that it claims."""

from __future__ import annotations

import math
import os
from pathlib import Path

import numpy as np
import pytest
from scipy import optimize

from lmlab.errors import DataError
from lmlab.sweeps.scaling_law import DELTA, Law, Points, fit, objective
from lmlab.sweeps.scaling_points import read_points

HOFFMANN = Law(E=1.69, A=406.4, B=410.7, alpha=0.34, beta=0.28)  # arXiv:2203.15556, equation 10
NAMES = ("E", "A", "B", "alpha", "beta")
CHINCHILLA = os.environ.get("LMLAB_CHINCHILLA_POINTS", "")


def drawn(law: Law, count: int, noise: float = 0.0, seed: int = 0) -> Points:
    """Points of a law at sizes and budgets like those of Hoffmann et al., with noise of log L."""
    draw = np.random.default_rng(seed)
    n, flops = (np.exp(draw.uniform(*np.log(ends), count)) for ends in ((5e7, 1.6e10), (6e18, 3e21)))
    d = flops / 6 / n
    return Points(n, d, law.loss(n, d) * np.exp(noise * draw.standard_normal(count)))


@pytest.mark.parametrize("law", [HOFFMANN, Law(0.4, 9.0, 80.0, 0.21, 0.55), Law(3.0, 5e4, 2.0, 0.9, 0.11)])
def test_points_of_a_law_give_it_back(law):
    found = fit(drawn(law, 31), resamples=0)
    assert [getattr(found.law, name) for name in NAMES] == pytest.approx([getattr(law, n) for n in NAMES], rel=1e-5)
    assert found.objective < 1e-15 and found.interval("E") is None


def test_the_objective_is_the_papers_and_its_gradient_the_slope_of_it():
    points = drawn(HOFFMANN, 17, noise=0.002)
    theta = np.array([5.9, 6.1, 0.52, 0.335, 0.282])
    a, b, e, alpha, beta = theta

    def huber(r: float) -> float:
        return r * r / 2 if abs(r) <= DELTA else DELTA * (abs(r) - DELTA / 2)

    rows = zip(points.parameters, points.tokens, points.loss, strict=True)
    residuals = [
        math.log(math.exp(e) + math.exp(a) / n**alpha + math.exp(b) / d**beta) - math.log(x) for n, d, x in rows
    ]
    assert {abs(r) <= DELTA for r in residuals} == {True, False}  # both branches
    value, gradient = objective(theta, points)
    assert value == pytest.approx(math.fsum(map(huber, residuals)), rel=1e-12)
    slopes = optimize.approx_fprime(theta, lambda t: objective(t, points)[0], 1e-8)
    assert gradient == pytest.approx(slopes, rel=1e-5, abs=1e-7)


def test_no_other_minimiser_finds_less():
    points = drawn(HOFFMANN, 41, noise=0.01)
    found = fit(points, resamples=0)
    law = found.law
    theta = np.array([math.log(law.A), math.log(law.B), math.log(law.E), law.alpha, law.beta])
    assert found.objective == pytest.approx(objective(theta, points)[0], rel=1e-9)
    draw = np.random.default_rng(1)
    for _ in range(5):
        start = theta + draw.normal(0, [0.4, 0.4, 0.1, 0.02, 0.02])
        other = optimize.minimize(lambda t: 1e6 * objective(t, points)[0], start, method="Powell", tol=1e-10)
        assert 1e-6 * other.fun >= found.objective * (1 - 1e-7)


def test_outliers_do_not_move_it_much():
    clean = drawn(HOFFMANN, 60, noise=0.001)
    loss = clean.loss.copy()
    loss[:4] *= 1.2
    law = fit(Points(clean.parameters, clean.tokens, loss), resamples=0).law
    assert (law.E, law.alpha, law.beta) == pytest.approx((HOFFMANN.E, HOFFMANN.alpha, HOFFMANN.beta), rel=0.04)


def test_intervals_are_the_same_each_time_and_hold_the_law():
    points = drawn(HOFFMANN, 60, noise=0.003, seed=3)
    one, again, other = (fit(points, resamples=30, seed=seed) for seed in (7, 7, 8))
    assert one.resampled == again.resampled != other.resampled
    for name in ("E", "alpha", "beta"):
        low, high = one.interval(name)
        assert low < getattr(HOFFMANN, name) < high and high - low < 0.2 * high
    low, high = one.predicted(7e10, 1.4e12)
    assert low < float(HOFFMANN.loss(7e10, 1.4e12)) < high


@pytest.mark.parametrize("flops", [1e18, 5.76e23])
def test_the_optimum_is_the_best_split_of_a_budget(flops):
    best = HOFFMANN.optimum(flops)
    found = optimize.minimize_scalar(
        lambda log_n: float(HOFFMANN.loss(math.exp(log_n), flops / 6 / math.exp(log_n))), bounds=(10, 40),
        method="bounded", options={"xatol": 1e-10},
    )  # fmt: skip
    assert 6 * best.parameters * best.tokens == pytest.approx(flops)
    assert best.loss == pytest.approx(found.fun, rel=1e-12)
    assert best.parameters == pytest.approx(math.exp(found.x), rel=1e-3)
    assert HOFFMANN.exponents == pytest.approx((0.4516, 0.5484), abs=1e-4)


def test_points_that_determine_no_law_are_refused():
    n, d = (grid.ravel() for grid in np.meshgrid([1e6, 2e6, 4e6, 8e6], [1e7, 3e7]))
    for points, why in (
        (Points(n, d, HOFFMANN.loss(n, d)), "4 sizes and 2 numbers of tokens"),
        (Points(n[:3], 7 * n[:3], HOFFMANN.loss(n[:3], n[:3])), "at least 6"),
        (Points(n * d, 20 * n * d, HOFFMANN.loss(n, d)), "by one rule"),
    ):
        with pytest.raises(DataError, match=why):
            fit(points)


def test_a_table_is_read_by_the_names_of_its_columns(tmp_path):
    path = tmp_path / "points.csv"
    path.write_text("loss, flops,note,parameters\n2.5,6e19,x,1e9\n3.5,1.2e19,y,5e8\n")
    found = read_points(path)
    assert found.tokens.tolist() == [1e10, 4e9] and found.loss.tolist() == [2.5, 3.5]
    path.write_text("x,Model Size,Training FLOP,hex_color,loss\n0,1e9,6e19,#faebdd,2.5\n")
    assert read_points(path).tokens.tolist() == [1e10]
    for text, why in (
        ("N,D,loss\n1,2,3\n", "must name the columns 'parameters'.*it names 'N', 'D', 'loss'"),
        ("parameters,tokens,loss\n", "no points"),
        ("", "it names none"),
        ("parameters,tokens,loss\n1e6,2e6,3\n1e6,much,3\n", r"points.csv:3: 'tokens' is 'much', which is no number"),
        ("parameters,tokens,loss\n1e6,2e6,-3\n", r"points.csv:2: 'loss' is -3; it must be a positive number"),
        ("parameters,tokens,loss\n1e6,2e6\n", r"points.csv:2: 'loss' is None"),
    ):
        path.write_text(text)
        with pytest.raises(DataError, match=why):
            read_points(path)
    with pytest.raises(DataError, match="cannot be read"):
        read_points(tmp_path / "nothing.csv")


@pytest.mark.skipif(not Path(CHINCHILLA).is_file(), reason="no file of Hoffmann's points in LMLAB_CHINCHILLA_POINTS")
def test_hoffmanns_points_give_the_law_of_besiroglu():
    """245 points as a CSV with the columns parameters, flops and loss, without the five of greatest loss."""
    points = read_points(CHINCHILLA)
    found = fit(points.at(np.argsort(points.loss)[:-5]), resamples=0)
    law = found.law
    assert len(found.points) == 240
    assert (law.E, law.alpha, law.beta) == pytest.approx((1.81722, 0.34731, 0.36717), abs=0.002)
    assert found.objective <= 1.01828e-3
