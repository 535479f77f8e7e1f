"""Models of the hidden Markov source against what is best possible: trains each and prints its excess in nats.

    python experiments/hmm_source/table.py runs/hmm_source            # all rows, about two hours on two cores
    python experiments/hmm_source/table.py runs/hmm_source gru bigram

A run that is finished is read, not trained again. Everything is measured on the 1,000 test sequences, and so is the
optimum beside it, from the same symbols with the same masks: the difference is free of the noise that both share. The
standard error is that of the optimum over other test sequences; of the difference it is far smaller. The exit code is 1
where a row is outside of its band, or better than the best possible.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from lmlab.config import build, resolve
from lmlab.data.generated import hidden_markov
from lmlab.data.generated.hidden_markov import HiddenMarkov, block_probabilities
from lmlab.data.generated.hmm_source import HMMSource
from lmlab.losses.mlm import MaskedLM
from lmlab.training.loop import train
from lmlab.training.program import Program
from lmlab.training.run import Run

HERE = Path(__file__).parent
ERRORS = 3  # standard errors that a model may be below the optimum of its test sequences
Best = tuple[np.ndarray, np.ndarray]
"""Nats of the best possible predictor and what they are counted by, summed over each sequence: (N,), (N,)."""


def autoregressive(program: Program, source: HMMSource) -> Best:
    """Of the next symbol, given all before it; without an opening id the first one is not predicted."""
    nats = hidden_markov.autoregressive_nats(source.model, _sequences(source))
    return _per_row(nats[:, 0 if source.begin else 1 :])


def any_order(program: Program, source: HMMSource) -> Best:
    """Of all symbols, in whatever order they are shown (absorbing diffusion)."""
    return _per_row(hidden_markov.autoregressive_nats(source.model, _sequences(source)))


def ngram(order: int) -> Callable[[Program, HMMSource], Best]:
    """Of the next symbol, given so many before it, less one."""

    def best(program: Program, source: HMMSource) -> Best:
        return _per_row(_ngram_nats(source.model, _sequences(source), order))

    return best


def masked(program: Program, source: HMMSource) -> Best:
    """Of the symbols that the run's own loss chooses in an evaluation, given what it shows of the sequence."""
    loss, sequences = program.loss, _sequences(source)
    assert isinstance(loss, MaskedLM)
    ones = np.ones(sequences.shape, np.float32)
    shown, chosen = map(np.asarray, loss.masked({"tokens": sequences, "weights": ones}, None))
    if float(loss.keep) == float(loss.random) == 0:
        nats = hidden_markov.masked_nats(source.model, sequences, chosen)
    else:
        seen = np.where(shown == source.special_ids["mask"], source.symbols, shown)
        nats = hidden_markov.corrupted_nats(source.model, sequences, seen, chosen, float(loss.rate))
    return nats.sum(1), chosen.sum(1)


@dataclass(frozen=True)
class Row:
    """One model.

    Attributes:
      file: its gin file in this folder.
      metric: what is measured, nats per symbol.
      best: the optimum.
      band: how far above it the model may be, nats (PAPERS' accept band where there is one).
      changes: bindings beside the file's.
      starts: seeds that it is trained from, of which the one with the lowest training loss at the end is measured.
    """

    file: str
    metric: str
    best: Callable[[Program, HMMSource], Best]
    band: float
    changes: tuple[str, ...] = ()
    starts: tuple[int, ...] = (0,)


NEXT = "test/nats_per_token"
ROWS = {
    "unigram": Row("ngram", NEXT, ngram(1), 0.002, ("ngram.order = 1", "ngram.smoothing = 'add'")),
    "bigram": Row("ngram", NEXT, ngram(2), 0.002, ("ngram.order = 2",)),
    "trigram": Row("ngram", NEXT, ngram(3), 0.05, ("ngram.order = 3",)),
    "gru": Row("gru", NEXT, autoregressive, 0.03),
    "lstm": Row("lstm", NEXT, autoregressive, 0.03),
    "gpt": Row("gpt", NEXT, autoregressive, 0.03),
    # Expectation-maximization ends in local optima.
    "hmm, Baum-Welch": Row("hmm_em", NEXT, autoregressive, 0.03, starts=(0, 1, 2, 3, 4)),
    "hmm, gradient": Row("hmm_gradient", NEXT, autoregressive, 0.03),
    "bert, masks only": Row("bert", "test/nats", masked, 0.05, ("mlm.keep = 0.0", "mlm.random = 0.0")),
    "bert, 80/10/10": Row("bert", "test/nats", masked, 0.05),
    "bert, diffusion": Row("masked_diffusion", "test/nelbo", any_order, 0.06),
    "text_vae, its bound": Row("text_vae", "test/nats", autoregressive, 0.05),
}


def main(folder: str, *names: str) -> int:
    """Trains or reads the runs, and prints one line for each; 1 where one is outside of its band."""
    print(f"{'model':22}{'measured':>10}{'optimum':>10}{'± s.e.':>9}{'excess':>10}{'band':>8}")
    outside = 0
    for name in names or ROWS:
        row = ROWS[name]
        runs = [_trained(row, seed, Path(folder) / re.sub(r"\W+", "_", f"{name}_{seed}")) for seed in row.starts]
        run = min(runs, key=_last_loss)
        found = [record for record in run.metrics() if record["phase"] == "eval"][-1][row.metric]
        total, weight = row.best(run.program, build(run.program.experiment.dataset))
        best = float(total.sum() / weight.sum())
        error = float(np.sqrt(((total - best * weight) ** 2).sum()) / weight.sum())
        print(f"{name:22}{found:10.4f}{best:10.4f}{error:9.4f}{found - best:+10.4f}{row.band:8.3f}", flush=True)
        if not best - ERRORS * error <= found <= best + row.band:  # also where it is no number
            outside += 1
            print(f"  {'better than the best possible' if found < best else 'outside of its band'}", flush=True)
    return 1 if outside else 0


def _trained(row: Row, seed: int, folder: Path) -> Run:
    changes = [*row.changes, f"experiment.seed = {seed}"]
    return train(resolve([str(HERE / f"{row.file}.gin")], ["; ".join(changes)]), folder)


def _last_loss(run: Run) -> float:
    return [record["loss"] for record in run.metrics() if record["phase"] == "train"][-1]


def _sequences(source: HMMSource) -> np.ndarray:
    return source.sequences("test", source.test_examples)


def _per_row(nats: np.ndarray) -> Best:
    return nats.sum(1), np.full(len(nats), nats.shape[1])


def _ngram_nats(source: HiddenMarkov, sequences: np.ndarray, order: int) -> np.ndarray:
    """-log p(x_t | the order - 1 symbols before it) under the source's own law, (N, L)."""
    blocks = [np.ones(()), *(block_probabilities(source, n) for n in range(1, order + 1))]
    nats = np.empty(sequences.shape)
    for t in range(sequences.shape[1]):
        n = min(order, t + 1)
        shown = tuple(sequences[:, t + 1 - n : t + 1].T)
        nats[:, t] = np.log(blocks[n - 1][shown[:-1]]) - np.log(blocks[n][shown])
    return nats


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
