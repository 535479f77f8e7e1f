"""The loss as a function of parameters and tokens: L(N, D) = E + A / N^alpha + B / D^beta, fitted to what was measured.

Hoffmann et al. 2022 (arXiv:2203.15556, section 3.3): the sum over all points of the Huber loss of log L is minimised
from a grid of starts. Besiroglu et al. 2024 (arXiv:2404.10102) found that the published numbers come of stopping too
early, which a sum (not a mean) and a tight tolerance avoid. Both papers minimise by L-BFGS; here it is BFGS, since of
five numbers no memory has to be limited: it ends lower, and scipy's L-BFGS wakes BLAS's threads in each of its steps.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, fields
from functools import cached_property
from typing import NamedTuple

import numpy as np
from scipy import optimize, special

from lmlab.errors import DataError
from lmlab.sweeps.statistics import LEVEL, Interval

DELTA = 1e-3
"""Residuals of log L beyond this count linearly, not squared (Hoffmann et al., section 3.3)."""

EXPONENTS = (0.1, 0.2, 0.3, 0.4, 0.5, 0.7, 1.0, 1.5)
"""The grid of starts: every pair of them as alpha and beta, with the E, A and B that least squares have for it."""

DESCENDED = 12
"""Of these, BFGS begins from so many, those of least objective. On Hoffmann's points 63 of 64 end at one place."""

RESAMPLES = 200
FEWEST = 6
"""Points that five numbers need to leave anything to be seen of how well they fit."""

_LOWEST = 1e-6
"""Where least squares gives E, A or B as zero, a start has this share of the smallest loss: its logarithm is needed."""
_RESTARTS = 5
_STEEPEST = 10.0
"""Of exponents."""


@dataclass(frozen=True)
class Points:
    """What was measured: one entry for each run, float64.

    Attributes:
      parameters: N.
      tokens: D.
      loss: L, nats per token.
    """

    parameters: np.ndarray
    tokens: np.ndarray
    loss: np.ndarray

    def __post_init__(self) -> None:
        for field in fields(self):
            values = np.asarray(getattr(self, field.name), np.float64)
            object.__setattr__(self, field.name, values)
            if not (np.isfinite(values).all() and (values > 0).all()):
                raise DataError(f"a scaling law is of positive numbers, and {field.name} has {_strange(values)!r}.")

    def __len__(self) -> int:
        return len(self.loss)

    @cached_property
    def logs(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """log N, log D and log L."""
        return np.log(self.parameters), np.log(self.tokens), np.log(self.loss)

    def at(self, places: np.ndarray | Sequence[int]) -> Points:
        """The points at these places, or where a mask has True."""
        return Points(self.parameters[places], self.tokens[places], self.loss[places])


@dataclass(frozen=True)
class Law:
    """L(N, D) = E + A / N^alpha + B / D^beta.

    Attributes:
      E: what no size and no amount of data brings the loss below, nats per token.
      A, alpha: of the part that parameters reduce.
      B, beta: of the part that tokens reduce.
    """

    E: float
    A: float
    B: float
    alpha: float
    beta: float

    def loss(self, parameters: np.ndarray | float, tokens: np.ndarray | float) -> np.ndarray:
        """L at each N and D, nats per token."""
        n, d = np.asarray(parameters, np.float64), np.asarray(tokens, np.float64)
        return self.E + self.A * n**-self.alpha + self.B * d**-self.beta

    @property
    def exponents(self) -> tuple[float, float]:
        """With how many-th power of the compute N_opt and D_opt grow; they sum to 1."""
        total = self.alpha + self.beta
        return self.beta / total, self.alpha / total

    def optimum(self, flops: float) -> Optimum:
        """The size and the tokens of least loss among all that cost C = 6 N D (Hoffmann et al., equation 4)."""
        gain = (self.alpha * self.A / (self.beta * self.B)) ** (1 / (self.alpha + self.beta))
        of_n, of_d = self.exponents
        n, d = gain * (flops / 6) ** of_n, (flops / 6) ** of_d / gain
        return Optimum(flops, n, d, float(self.loss(n, d)))


class Optimum(NamedTuple):
    """The best use of a budget.

    Attributes:
      flops: C = 6 N D.
      parameters: N_opt.
      tokens: D_opt.
      loss: of the law there.
    """

    flops: float
    parameters: float
    tokens: float
    loss: float


@dataclass(frozen=True)
class Fit:
    """A law and how far it is to be believed.

    Attributes:
      law: that of least objective.
      objective: the sum of Huber losses of log L.
      points: what it was fitted to.
      resampled: laws of bootstrap resamples of the points.
    """

    law: Law
    objective: float
    points: Points
    resampled: tuple[Law, ...]

    def interval(self, of: str) -> Interval | None:
        """The percentile interval of a number of the law, by its name; None without resamples."""
        return percentiles([getattr(law, of) for law in self.resampled])

    def predicted(self, parameters: float, tokens: float) -> Interval | None:
        """The percentile interval of the law's loss at N and D: of what the law is there, not of a run's luck."""
        return percentiles([float(law.loss(parameters, tokens)) for law in self.resampled])


def percentiles(values: Sequence[float]) -> Interval | None:
    """The middle `LEVEL` of some numbers; None of fewer than two."""
    if len(values) < 2:
        return None
    low, high = np.quantile(values, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return Interval(float(low), float(high))


def objective(theta: np.ndarray, points: Points, delta: float = DELTA) -> tuple[float, np.ndarray]:
    """The sum over points of Huber(log of the law - log L), and its gradient.

    Args:
      theta: (5,): log A, log B, log E, alpha, beta.
      points: what was measured.
      delta: where Huber's loss turns from r²/2 to delta (|r| - delta/2).
    """
    a, b, e, alpha, beta = theta
    log_n, log_d, log_loss = points.logs
    terms = np.stack([a - alpha * log_n, b - beta * log_d, np.full_like(log_n, e)])
    largest = terms.max(0)
    shares = np.exp(terms - largest)
    total = shares.sum(0)
    residual = largest + np.log(total) - log_loss
    pull = residual.clip(-delta, delta)  # the derivative of Huber's loss, which is pull (residual - pull / 2)
    of_n, of_d, of_e = shares / total * pull
    gradient = np.array([of_n.sum(), of_d.sum(), of_e.sum(), -(of_n @ log_n), -(of_d @ log_d)])
    return float(pull @ (residual - pull / 2)), gradient


def fit(points: Points, *, resamples: int = RESAMPLES, seed: int = 0, delta: float = DELTA) -> Fit:
    """The law of least objective, and what it is when the points are drawn again with replacement.

    Args:
      points: at least `FEWEST`.
      resamples: bootstrap resamples, each descended into from the law of all points; such as cannot determine a law
        are drawn again.
      seed: of the resampling.
      delta: see `objective`.

    Raises:
      DataError: too few points, or points that cannot tell N from D.
    """
    check_determined(points)
    theta, value = _best(points, _starts(points, delta)[:DESCENDED], delta)
    draw = np.random.default_rng(seed)
    found: list[Law] = []
    while len(found) < resamples:
        sample = points.at(draw.integers(len(points), size=len(points)))
        if not undetermined(sample):
            found.append(_law(_best(sample, [theta], delta)[0]))
    return Fit(_law(theta), value, points, tuple(found))


def check_determined(points: Points) -> None:
    """DataError where the points cannot determine a law."""
    if problem := undetermined(points):
        raise DataError(
            f"these {len(points)} points determine no scaling law: {problem}. Train several sizes, each with several "
            "numbers of tokens (lmlab describe ladder)."
        )


def undetermined(points: Points) -> str | None:
    """Why the points determine no law; None where they do."""
    sizes, budgets = len(np.unique(points.parameters)), len(np.unique(points.tokens))
    if len(points) < FEWEST:
        return f"it has five numbers, and needs at least {FEWEST}"
    if min(sizes, budgets) < 3:
        return f"there are {sizes} sizes and {budgets} numbers of tokens among them, and three of each are needed"
    n, d = (log - log.mean() for log in points.logs[:2])
    if (n * n).sum() * (d * d).sum() - (n * d).sum() ** 2 < 1e-9 * (n * n).sum() * (d * d).sum():  # correlated by ±1
        return "tokens rise with the size by one rule, so that what does it, N or D, cannot be told"
    return None


def _starts(points: Points, delta: float) -> list[np.ndarray]:
    """For every pair of exponents the theta whose E, A and B are best in least squares of the relative error.

    Those of least objective come first.
    """
    found = []
    for alpha, beta in itertools.product(EXPONENTS, repeat=2):
        columns = np.stack([points.parameters**-alpha, points.tokens**-beta, np.ones(len(points))])
        scale = columns.max(1, keepdims=True)
        weights, _ = optimize.nnls((columns / scale / points.loss).T, np.ones(len(points)))
        weights = np.maximum(weights, _LOWEST * points.loss.min()) / scale[:, 0]
        found.append(np.array([*np.log(weights), alpha, beta]))
    return sorted(found, key=lambda start: objective(start, points, delta)[0])


def _best(points: Points, starts: Sequence[np.ndarray], delta: float) -> tuple[np.ndarray, float]:
    """The theta of least objective that BFGS finds from any of the starts, and that objective."""
    centred = _Centred(points, delta)
    ends = [centred.descend(centred.inwards(start)) for start in starts]
    best = centred.outwards(min(ends, key=lambda end: centred.value(end)[0]))
    return best, objective(best, points, delta)[0]


class _Centred:
    """The objective in numbers that a minimiser can move one by one.

    N and D are in units of their geometric means, where log A and alpha do not pull at each other, and an exponent is
    `_STEEPEST` times the logistic function of a number, so that it stays above 0.

    Args:
      points, delta: as of `objective`.
    """

    def __init__(self, points: Points, delta: float) -> None:
        self._means = np.log(points.parameters).mean(), np.log(points.tokens).mean()
        n, d = np.exp(self._means)
        self._points = Points(points.parameters / n, points.tokens / d, points.loss)
        self._delta = delta

    def inwards(self, theta: np.ndarray) -> np.ndarray:
        """`theta` in these numbers."""
        exponents = theta[3:]
        return np.array([*(theta[:2] - exponents * self._means), theta[2], *special.logit(exponents / _STEEPEST)])

    def outwards(self, numbers: np.ndarray) -> np.ndarray:
        """The inverse of `inwards`."""
        exponents = _STEEPEST * special.expit(numbers[3:])
        return np.array([*(numbers[:2] + exponents * self._means), numbers[2], *exponents])

    def value(self, numbers: np.ndarray) -> tuple[float, np.ndarray]:
        """Objective and gradient in units of delta²: a minimiser takes changes far below 1 for none."""
        share = special.expit(numbers[3:])
        found, slope = objective(np.array([*numbers[:3], *(_STEEPEST * share)]), self._points, self._delta)
        slope[3:] *= _STEEPEST * share * (1 - share)
        return found / self._delta**2, slope / self._delta**2

    def descend(self, numbers: np.ndarray) -> np.ndarray:
        """The end of BFGS, begun anew where it stops until that gains nothing: a kink of the gradient may stop it."""
        last = np.inf
        for _ in range(_RESTARTS):
            end = optimize.minimize(self.value, numbers, jac=True, method="BFGS", options={"gtol": 1e-7})
            numbers = end.x
            if last - end.fun <= 1e-9 * max(1.0, end.fun):
                break
            last = end.fun
        return numbers


def _law(theta: np.ndarray) -> Law:
    a, b, e, alpha, beta = map(float, theta)
    return Law(float(np.exp(e)), float(np.exp(a)), float(np.exp(b)), alpha, beta)


def _strange(values: np.ndarray) -> float:
    return float(values[~(np.isfinite(values) & (values > 0))][0])
