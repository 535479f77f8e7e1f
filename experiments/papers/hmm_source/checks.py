"""Models of the hidden Markov source against what is best possible on the same test sequences, in nats.

The optimum is computed from the same symbols with the same masks as the model's loss: the difference is free of the
noise that both share.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np

from lmlab.config import build
from lmlab.data.generated import hidden_markov
from lmlab.data.generated.hidden_markov import HiddenMarkov, block_probabilities
from lmlab.data.generated.hmm_source import HMMSource
from lmlab.losses.mlm import MaskedLM
from lmlab.papers.measuring import RunAt
from lmlab.training.program import Program

NEXT = "test/nats_per_token"
Runs = Mapping[str, RunAt]
Best = tuple[np.ndarray, np.ndarray]
"""Nats of the best possible predictor and what they are counted by, summed over each sequence: (N,), (N,)."""


def optima() -> Mapping[str, float]:
    """Entropies of n-grams, exact, and optima over 20,000 sequences that are in no split."""
    source = HMMSource()
    known = {**source.known(), **source.optima(20_000)}
    names = {
        "unigram": "entropy/unigram_nats_per_token",
        "bigram": "entropy/bigram_nats_per_token",
        "trigram": "entropy/trigram_nats_per_token",
        "autoregressive": "estimate/autoregressive_optimum_nats_per_token",
        "masked": "estimate/masked_15_optimum_nats_per_masked_token",
        "corrupted": "estimate/masked_15_80_10_10_optimum_nats_per_selected_token",
    }
    return {short: known[name] for short, name in names.items()}


def unigram(runs: Runs) -> float:
    """Excess over the best predictor that sees no symbol before."""
    return _excess(runs, NEXT, _ngram(1))


def bigram(runs: Runs) -> float:
    """Excess over the best predictor that sees one symbol before."""
    return _excess(runs, NEXT, _ngram(2))


def trigram(runs: Runs) -> float:
    """Excess over the best predictor that sees two symbols before."""
    return _excess(runs, NEXT, _ngram(3))


def next_symbol(runs: Runs) -> float:
    """Excess over the best predictor of the next symbol, given all before it."""
    return _excess(runs, NEXT, _autoregressive)


def bound(runs: Runs) -> float:
    """Excess of a VAE's bound over the best predictor of the next symbol."""
    return _excess(runs, "test/nats", _autoregressive)


def masked(runs: Runs) -> float:
    """Excess over the best predictor of the symbols that the loss chooses, given what it shows."""
    return _excess(runs, "test/nats", _masked)


def diffusion(runs: Runs) -> float:
    """Excess of the bound of masked diffusion, whose optimum is that of the next symbol, whatever the order."""
    return _excess(runs, "test/nelbo", _any_order)


def _excess(runs: Runs, metric: str, best: Callable[[Program, HMMSource], Best]) -> float:
    """What the one run is above the optimum of its test sequences."""
    (at,) = runs.values()
    measured = at.last(metric)
    program = at.run.program
    total, weight = best(program, build(program.experiment.dataset))
    return measured - float(total.sum() / weight.sum())


def _autoregressive(program: Program, source: HMMSource) -> Best:
    """Without an opening id the first symbol is not predicted."""
    nats = hidden_markov.autoregressive_nats(source.model, _sequences(source))
    return _per_row(nats[:, 0 if source.begin else 1 :])


def _any_order(program: Program, source: HMMSource) -> Best:
    return _per_row(hidden_markov.autoregressive_nats(source.model, _sequences(source)))


def _ngram(order: int) -> Callable[[Program, HMMSource], Best]:
    return lambda program, source: _per_row(_ngram_nats(source.model, _sequences(source), order))


def _masked(program: Program, source: HMMSource) -> Best:
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
