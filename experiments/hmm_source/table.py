"""Models of the hidden Markov source against what is best possible: trains each and prints its excess in nats.

    python experiments/hmm_source/table.py runs/hmm_source ngram hmm_em gpt

Each name is a gin file of this folder; a run that is finished is read, not trained again. Measured on the 1,000 test
sequences, and so is the optimum beside it: the difference is free of the noise that both share. The standard error is
that of the optimum over other test sequences.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np

from lmlab.config import build, resolve
from lmlab.data.generated import hidden_markov
from lmlab.data.generated.hmm_source import HMMSource
from lmlab.training.loop import train

HERE = Path(__file__).parent
METRICS = ("test/nats_per_token", "test/nelbo", "test/nats")
"""What is measured, in nats; the first that a run reports."""


def optimum(source: HMMSource, metric: str) -> tuple[float, float]:
    """The optimum of a metric on the test sequences, or its estimate for a masked model, and the standard error."""
    if metric == "test/nats":
        known, name = source.known(), "estimate/masked_15_80_10_10_optimum_nats_per_selected_token"
        return known[name], known[f"{name}_standard_error"]
    nats = hidden_markov.autoregressive_nats(source.model, source.sequences("test", source.test_examples))
    given = 0 if source.begin or metric == "test/nelbo" else 1  # the first symbol is not predicted without an opening
    means = nats[:, given:].mean(axis=1)
    return float(means.mean()), float(means.std() / len(means) ** 0.5)


def main(folder: str, *names: str) -> None:
    """Trains or reads the runs, and prints one line for each."""
    print(f"{'model':24}{'measured':>10}{'optimum':>10}{'excess':>10}{'± s.e.':>10}")
    for name in names:
        run = train(resolve([str(HERE / f"{name}.gin")]), Path(folder) / name)
        found = [record for record in run.metrics() if record["phase"] == "eval"][-1]
        metric = next(metric for metric in METRICS if metric in found)
        best, error = optimum(build(run.program.experiment.dataset), metric)
        print(f"{name:24}{found[metric]:10.4f}{best:10.4f}{found[metric] - best:+10.4f}{error:10.4f}")
        if np.isfinite(found[metric]) and found[metric] < best - 3 * error:
            raise SystemExit(f"{name} is better than the best possible: something is wrong")


if __name__ == "__main__":
    main(*sys.argv[1:])
