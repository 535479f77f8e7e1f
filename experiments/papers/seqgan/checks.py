"""SeqGAN and maximum likelihood on the oracle's sentences: both NLLs, and their curves over temperatures."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from lmlab.data.generated.drawing import SPLITS
from lmlab.data.generated.seqgan_oracle import SeqGANOracle
from lmlab.evaluation.oracle_nats import OracleNats
from lmlab.evaluation.perplexity import Perplexity
from lmlab.generation.samplers import Sample
from lmlab.papers.measuring import NotMeasured, RunAt
from lmlab.training.run import Run

ORACLE, TEST = "test/oracle_nats_per_token", "test/nats_per_token"
MLE_ENDS = 18_720
"""The step of a run of SeqGAN at which its adversarial part begins."""
SENTENCES, AT_ONCE = 10_000, 1000
GRID = tuple(round(0.6 + 0.2 * k, 1) for k in range(12))
"""Inverse temperatures, 0.6 to 2.8."""
TEXTS = 2000
"""That are written at each of them; the standard error of their NLL_oracle is about 0.02."""
Runs = Mapping[str, RunAt]


class Point(NamedTuple):
    """A model at one temperature."""

    oracle: float
    test: float


def oracle() -> Mapping[str, float]:
    """NLL_oracle of the oracle's own sentences and of uniform tokens, with the standard error over sentences."""
    law = SeqGANOracle()
    random = np.random.default_rng([law.seed, 2 + len(SPLITS)])  # neither a split's nor that of `known`
    own = np.stack([law.draw(random, "own").ids[1:] for _ in range(SENTENCES)])
    uniform = random.integers(0, law.vocab, own.shape)
    found = {}
    for name, texts in {"self": own, "uniform": uniform}.items():
        nats = np.concatenate([law.nats(part).mean(1) for part in np.split(texts, SENTENCES // AT_ONCE)])
        found |= {name: float(nats.mean()), f"{name}_standard_error": float(nats.std(ddof=1) / np.sqrt(len(nats)))}
    return found


def overfitted(runs: Runs) -> float:
    """How far NLL_test is above what it was at the first look."""
    (run,) = runs.values()
    return run.last(TEST) - run.curve(TEST)[1][0]


def gained(runs: Runs) -> float:
    """How far the adversarial part has brought NLL_oracle below that of the maximum likelihood it began from."""
    (run,) = runs.values()
    before = dict(zip(*run.curve(ORACLE), strict=True)).get(MLE_ENDS)
    if before is None:
        raise NotMeasured(f"{run.folder} has recorded no '{ORACLE}' at step {MLE_ENDS}")
    return before - run.last(ORACLE)


def dominated(runs: Runs) -> float:
    """The share of SeqGAN's temperatures at which maximum likelihood, at some temperature, has both NLLs lower."""
    reference = curve_of(runs["mle_tuned"].run)
    return share_below(reference, curve_of(runs["seqgan"].run))


def sharp_oracle(runs: Runs) -> float:
    """NLL_oracle of the one run at an inverse temperature of 1.6."""
    (run,) = runs.values()
    return points(run.run, (1.6,), SENTENCES)[0].oracle


def sharp_test(runs: Runs) -> float:
    """NLL_test there."""
    (run,) = runs.values()
    return points(run.run, (1.6,), SENTENCES)[0].test


def curve_of(run: Run) -> tuple[Point, ...]:
    """A run's newest state at all inverse temperatures of the grid."""
    return points(run, GRID, TEXTS)


def points(run: Run, alphas: tuple[float, ...], texts: int) -> tuple[Point, ...]:
    """Both NLLs of a run's newest state at inverse temperatures.

    Logits times alpha are those of a head times alpha, so that the evaluators measure the tempered model as any other.
    """
    program, state = run.program, run.state
    written = OracleNats("test", texts, sampler=Sample()).bind(program)
    predicted = Perplexity("test", None).bind(program)
    found = []
    for alpha in alphas:
        params = {path: value * alpha if "head" in path.split("/") else value for path, value in state.params.items()}
        tempered = state._replace(params=params)
        found.append(Point(written(tempered)[ORACLE], predicted(tempered)[TEST]))
    return tuple(found)


def share_below(reference: tuple[Point, ...], others: tuple[Point, ...]) -> float:
    """The share of other points that have a point of the reference's curve at or below them in both numbers.

    Between two temperatures the curve is a line, which can be had: texts that are written at one of the two, chosen by
    lot, have the mean NLL_oracle, and an NLL_test that is no greater than the mean (-log is convex).
    """
    ends = np.array(reference)
    shares = np.linspace(0, 1, 101)[:, None, None]
    line = (ends[:-1] + shares * (ends[1:] - ends[:-1])).reshape(-1, 2)
    return float(np.mean([(line <= np.array(point)).all(1).any() for point in others]))
