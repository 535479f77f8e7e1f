"""The scaling law of the points in Hoffmann et al.'s figure 4, as Besiroglu et al. fit it again."""

from __future__ import annotations

import functools
import os
from collections.abc import Mapping

import numpy as np

from lmlab.papers.measuring import NotMeasured
from lmlab.sweeps.scaling_law import Law, Points, fit, objective
from lmlab.sweeps.scaling_points import read_points

FILE = "LMLAB_CHINCHILLA_POINTS"
OUTLIERS = 5
"""Points of the greatest loss that the authors leave out."""
PUBLISHED = Law(E=1.69, A=406.4, B=410.7, alpha=0.34, beta=0.28)
"""Hoffmann et al. 2022, equation 10."""
BUDGET = 5.76e23
"""FLOP of Gopher and of Chinchilla (Hoffmann et al. 2022, section 1)."""


@functools.cache
def refit() -> Mapping[str, float]:
    """The law of 240 points, how well it fits, and what 400 bootstrap resamples make of it."""
    points = _points()
    kept = points.at(np.argsort(points.loss)[:-OUTLIERS])
    found = fit(kept, resamples=400)
    law, beta = found.law, found.interval("beta")
    assert beta is not None
    best = law.optimum(BUDGET)
    return {
        "points": float(len(kept)),
        "objective": found.objective,
        "E": law.E,
        "A": law.A,
        "B": law.B,
        "alpha": law.alpha,
        "beta": law.beta,
        "beta_low": beta.low,
        "objective_as_published": objective(_theta(PUBLISHED), kept)[0],
        "tokens_per_parameter": best.tokens / best.parameters,
    }


def _points() -> Points:
    path = os.environ.get(FILE)
    if not path:
        raise NotMeasured(f"set {FILE} to the file of points; experiments/papers/chinchilla_refit/README.md says which")
    return read_points(path)


def _theta(law: Law) -> np.ndarray:
    return np.array([np.log(law.A), np.log(law.B), np.log(law.E), law.alpha, law.beta])
