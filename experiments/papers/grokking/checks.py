"""When equations are known by heart, and when they are understood: accuracies of grokking runs.

A run counts right tokens over the answer and the end of the equation. An equation is right if both are: of a share `a`
of right tokens at least 2a - 1 of all equations are, and just as many where the end is always right.
"""

from __future__ import annotations

from collections.abc import Mapping

from lmlab.papers.measuring import NotMeasured, RunAt

KNOWN, VALID, TRAIN = 0.99, "valid/accuracy", "train/accuracy"
HEART = 3000
"""Steps by which training equations are to be known by heart."""


def trained(runs: Mapping[str, RunAt]) -> float:
    """The best training accuracy within the first 3,000 steps."""
    steps, values = _accuracies(_one(runs), TRAIN)
    return max(value for step, value in zip(steps, values, strict=True) if step <= HEART)


def understood(runs: Mapping[str, RunAt]) -> float:
    """The best validation accuracy so far."""
    return max(_accuracies(_one(runs), VALID)[1])


def gap(runs: Mapping[str, RunAt]) -> float:
    """Steps to 99 % on validation over steps to 99 % in training."""
    run = _one(runs)
    return _first(run, VALID) / _first(run, TRAIN)


def without_decay(runs: Mapping[str, RunAt]) -> float:
    """Validation accuracy without weight decay, at the step where it is 99 % with it."""
    when = _first(runs["division"], VALID)
    steps, values = _accuracies(runs["division_no_decay"], VALID)
    return next(value for step, value in zip(steps, values, strict=True) if step >= when)


def _one(runs: Mapping[str, RunAt]) -> RunAt:
    (run,) = runs.values()
    return run


def _accuracies(run: RunAt, metric: str) -> tuple[list[int], list[float]]:
    steps, values = run.curve(metric)
    if not steps:
        raise NotMeasured(f"{run.folder} has recorded no '{metric}' by step {run.step}")
    return steps, [max(0.0, 2 * value - 1) for value in values]


def _first(run: RunAt, metric: str) -> int:
    for step, value in zip(*_accuracies(run, metric), strict=True):
        if value >= KNOWN:
            return step
    raise NotMeasured(f"{run.folder} has not come to {KNOWN:.0%} in {metric} by step {run.step}")
