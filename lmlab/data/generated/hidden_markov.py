"""Hidden Markov models: sampling, and what the best possible predictors of their symbols reach, exactly.

Letters: K states, V symbols, L length, N sequences. All float64. Sequences are (N, L) integers below V.
"""

from __future__ import annotations

import functools
import itertools
from bisect import bisect_right
from dataclasses import dataclass

import numpy as np

SMOOTHING = 0.02  # of uniform law mixed into every row, so that nothing is impossible


@dataclass(frozen=True, eq=False)
class HiddenMarkov:
    """A stationary hidden Markov model.

    Args:
      transition: p(next state | state), (K, K).
      emission: p(symbol | state), (K, V).
      start: p(first state), the stationary law of `transition`, (K,).
    """

    transition: np.ndarray
    emission: np.ndarray
    start: np.ndarray

    @classmethod
    def random(cls, states: int, symbols: int, concentration: float, seed: int) -> HiddenMarkov:
        """Rows from symmetric Dirichlet laws: all of the transition, then all of the emission, then smoothed."""
        random = np.random.default_rng(seed)
        transition = _smoothed(random.dirichlet(np.full(states, concentration), states))
        emission = _smoothed(random.dirichlet(np.full(symbols, concentration), states))
        return cls(transition, emission, stationary(transition))

    def sample(self, random: np.random.Generator, length: int) -> np.ndarray:
        """One sequence, (L,) int32: inversion of the states' and then of the symbols' cumulative laws."""
        start, following, emission = self._cumulative
        path, state = [], -1
        for u in random.random(length).tolist():
            state = bisect_right(start if state < 0 else following[state], u)
            path.append(state)
        return (emission[path] <= random.random(length)[:, None]).sum(axis=1, dtype=np.int32)

    @functools.cached_property
    def _cumulative(self) -> tuple[list[float], list[list[float]], np.ndarray]:
        """Without their last entries, which may be below 1 by rounding: what is drawn is always an index."""
        start, following = np.cumsum(self.start)[:-1].tolist(), np.cumsum(self.transition, axis=1)[:, :-1].tolist()
        return start, following, np.cumsum(self.emission, axis=1)[:, :-1]


def _smoothed(rows: np.ndarray) -> np.ndarray:
    return (1 - SMOOTHING) * rows + SMOOTHING / rows.shape[1]


def stationary(transition: np.ndarray) -> np.ndarray:
    """The law π with π = π·transition, (K,)."""
    states = len(transition)
    equations = np.vstack([transition.T - np.eye(states), np.ones(states)])
    return np.linalg.lstsq(equations, np.append(np.zeros(states), 1.0), rcond=None)[0]


def block_probabilities(source: HiddenMarkov, n: int) -> np.ndarray:
    """p(x_1 … x_n) of every n-gram, (V,)·n. Takes K·V^n numbers."""
    joint = source.start[:, None] * source.emission  # state, symbols so far
    for _ in range(n - 1):
        joint = np.einsum("k...,kl,lv->l...v", joint, source.transition, source.emission, optimize=True)
    return joint.sum(axis=0)


def conditional_entropies(source: HiddenMarkov, n: int) -> list[float]:
    """H(x_m | the m-1 symbols before it) for m = 1 … n, nats: what the best unigram, bigram, ... reaches."""
    blocks = [0.0]
    for m in range(1, n + 1):
        p = block_probabilities(source, m)
        blocks.append(float(-(p * np.log(p)).sum()))
    return [later - earlier for earlier, later in itertools.pairwise(blocks)]


def entropy_floor(source: HiddenMarkov, n: int) -> float:
    """H(x_n | x_1 … x_n-1 and the first state), nats: no predictor of a longer past is better in the limit.

    The entropy rate is between this and the last of `conditional_entropies` (Cover & Thomas 2006, theorem 4.5.1).
    """
    joint = np.einsum("k,kj,kv->kjv", source.start, np.eye(len(source.start)), source.emission)  # first, last, symbols
    blocks = [float(-(source.start * np.log(source.start)).sum())]
    for m in range(n):
        if m:
            joint = np.einsum("fk...,kl,lv->fl...v", joint, source.transition, source.emission, optimize=True)
        p = joint.sum(axis=1)
        blocks.append(float(-(p * np.log(p)).sum()))
    return blocks[-1] - blocks[-2]


def autoregressive_nats(source: HiddenMarkov, sequences: np.ndarray) -> np.ndarray:
    """-log p(x_t | x_1 … x_t-1) at every position, by the forward algorithm; (N, L)."""
    likelihood = source.emission.T[sequences]  # (N, L, K)
    nats = np.empty(sequences.shape)
    before = np.broadcast_to(source.start, (len(sequences), len(source.start)))
    for t in range(sequences.shape[1]):
        joint = before * likelihood[:, t]
        total = joint.sum(axis=1)
        nats[:, t] = -np.log(total)
        before = (joint / total[:, None]) @ source.transition
    return nats


def states_around(source: HiddenMarkov, evidence: np.ndarray) -> np.ndarray:
    """p(state at t | the evidence at all other positions), by forward-backward; (N, L, K).

    Args:
      source: the model.
      evidence: p(what is seen at t | state at t) up to a factor, (N, L, K); a constant where nothing is seen.
    """
    ahead, behind = np.empty(evidence.shape), np.empty(evidence.shape)
    length = evidence.shape[1]
    ahead[:, 0], behind[:, -1] = source.start, 1.0
    for t in range(1, length):
        ahead[:, t] = _normalised(ahead[:, t - 1] * evidence[:, t - 1]) @ source.transition
        behind[:, -1 - t] = _normalised(behind[:, -t] * evidence[:, -t]) @ source.transition.T
    return _normalised(ahead * behind)


def _normalised(weights: np.ndarray) -> np.ndarray:
    return weights / weights.sum(axis=-1, keepdims=True)


def masked_nats(source: HiddenMarkov, sequences: np.ndarray, masked: np.ndarray) -> np.ndarray:
    """-log p(x_t | the symbols that are not masked) at every masked position, 0 elsewhere; (N, L).

    Args:
      source: the model.
      sequences: the true symbols, (N, L).
      masked: which of them are hidden, (N, L) bool.
    """
    likelihood = source.emission.T[sequences]
    around = states_around(source, np.where(masked[..., None], 1.0, likelihood))
    return np.where(masked, -np.log((around * likelihood).sum(axis=-1)), 0.0)


def corrupted_nats(
    source: HiddenMarkov, sequences: np.ndarray, seen: np.ndarray, selected: np.ndarray, rate: float
) -> np.ndarray:
    """-log p(x_t | everything seen) at every selected position, 0 elsewhere, under BERT's corruption; (N, L).

    Of the selected symbols 80 % are hidden, 10 % are kept and 10 % are replaced by a uniform one. The predictor knows
    which position it is asked about, and not which others are selected: elsewhere, a symbol is seen in its own place
    with probability 1 - 0.9·rate, and any one in the place of any other with 0.1·rate / V.

    Args:
      source: the model.
      sequences: the true symbols, (N, L).
      seen: what the predictor sees, (N, L); V for a hidden one.
      selected: the positions to predict, (N, L) bool.
      rate: probability with which each position is selected.
    """
    symbols = source.emission.shape[1]
    as_seen = np.vstack([(1 - 0.9 * rate) * source.emission.T + 0.1 * rate / symbols, np.ones(len(source.start))])
    around = states_around(source, as_seen[seen])
    law = around @ source.emission  # of the true symbol, without what is seen in its own place: (N, L, V)
    own = np.full((symbols + 1, symbols), 0.1 / symbols)  # p(seen | true symbol, selected)
    own[np.arange(symbols), np.arange(symbols)] += 0.1
    own[symbols] = 0.8
    law = _normalised(law * own[seen])
    nats = -np.log(np.take_along_axis(law, sequences[..., None], axis=-1)[..., 0])
    return np.where(selected, nats, 0.0)


def corrupt(random: np.random.Generator, sequences: np.ndarray, selected: np.ndarray, symbols: int) -> np.ndarray:
    """The sequences as BERT's predictor sees them: of the selected 80 % are V, 10 % kept, 10 % uniform; (N, L)."""
    choice = random.random(sequences.shape)
    uniform = random.integers(0, symbols, sequences.shape)
    seen = np.where(choice < 0.8, symbols, np.where(choice < 0.9, sequences, uniform))
    return np.where(selected, seen, sequences)
