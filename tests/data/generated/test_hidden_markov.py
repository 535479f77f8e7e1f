"""Hidden Markov models: every exact quantity against the enumeration of all paths, sequences and masks."""

import itertools
from math import gamma

import numpy as np
import pytest

from lmlab.data.generated.hidden_markov import (
    HiddenMarkov,
    autoregressive_nats,
    block_probabilities,
    conditional_entropies,
    corrupt,
    corrupted_nats,
    entropy_floor,
    masked_nats,
    stationary,
)

K, V, L = 2, 3, 4
RATE = 0.3
SEQUENCES = np.array(list(itertools.product(range(V), repeat=L)))


@pytest.fixture(scope="module")
def source():
    return HiddenMarkov.random(K, V, 0.7, seed=5)


@pytest.fixture(scope="module")
def law(source):
    """p(sequence) of all V^L sequences, by summing over all K^L paths of states."""
    return np.array([probability(source, sequence) for sequence in SEQUENCES])


def probability(source, sequence):
    total = 0.0
    for path in itertools.product(range(K), repeat=len(sequence)):
        p = source.start[path[0]]
        for state, following in itertools.pairwise(path):
            p *= source.transition[state, following]
        for state, symbol in zip(path, sequence, strict=True):
            p *= source.emission[state, symbol]
        total += p
    return total


def entropy(p):
    return -(p * np.log(p)).sum()


def test_its_rows_are_smoothed_laws_and_its_start_stays(source):
    for rows in (source.transition, source.emission):
        np.testing.assert_allclose(rows.sum(axis=1), 1, rtol=1e-12)
        assert rows.min() >= 0.02 / rows.shape[1]
    np.testing.assert_allclose(source.start @ source.transition, source.start, rtol=1e-12)
    np.testing.assert_allclose(np.linalg.matrix_power(source.transition, 500)[0], source.start, rtol=1e-9)
    np.testing.assert_allclose(stationary(np.array([[0.9, 0.1], [0.3, 0.7]])), [0.75, 0.25], rtol=1e-12)


def test_block_probabilities_are_sums_over_all_paths(source, law):
    np.testing.assert_allclose(block_probabilities(source, L).reshape(-1), law, rtol=1e-12)
    assert law.sum() == pytest.approx(1, rel=1e-12)


def test_entropies_of_n_grams_are_differences_of_enumerated_entropies(source):
    blocks = [0.0]
    for n in (1, 2, 3):
        p = np.array([probability(source, s) for s in itertools.product(range(V), repeat=n)])
        blocks.append(entropy(p))
    np.testing.assert_allclose(conditional_entropies(source, 3), np.diff(blocks), rtol=1e-12)


def test_the_entropy_rate_lies_between_the_floor_and_the_conditional_entropy(source):
    above = conditional_entropies(source, 9)
    below = [entropy_floor(source, n) for n in (1, 2, 3, 8)]
    assert below == sorted(below) and above == sorted(above, reverse=True)
    assert below[-1] < above[-1] and above[-1] - below[-1] < 1e-3
    emitted = sum(p * entropy(row) for p, row in zip(source.start, source.emission, strict=True))
    assert below[0] == pytest.approx(emitted, rel=1e-12)  # H(x_1 | state 1)


def test_the_forward_algorithm_gives_every_sequence_its_probability(source, law):
    nats = autoregressive_nats(source, SEQUENCES)
    np.testing.assert_allclose(nats.sum(axis=1), -np.log(law), rtol=1e-12)
    conditional = [
        law[(SEQUENCES[:, :2] == s[:2]).all(1)].sum() / law[SEQUENCES[:, 0] == s[0]].sum() for s in SEQUENCES
    ]
    np.testing.assert_allclose(nats[:, 1], -np.log(conditional), rtol=1e-12)


def masks():
    return np.array(list(itertools.product([False, True], repeat=L)))


def test_masked_symbols_have_their_enumerated_posterior(source, law):
    for mask in masks():
        nats = masked_nats(source, SEQUENCES, np.broadcast_to(mask, SEQUENCES.shape))
        for sequence, found in zip(SEQUENCES[::7], nats[::7], strict=True):
            agree = (SEQUENCES[:, ~mask] == sequence[~mask]).all(axis=1)
            for t in range(L):
                p = law[agree & (SEQUENCES[:, t] == sequence[t])].sum() / law[agree].sum()
                assert found[t] == pytest.approx(-np.log(p) if mask[t] else 0.0, rel=1e-10)


def test_the_bound_of_absorbing_diffusion_is_the_autoregressive_one(source, law):
    """∫ (1/t) Σ over masks of t^m (1-t)^(L-m), with t at each of m masked places, is a Beta function."""
    bound = np.zeros(len(SEQUENCES))
    for mask in masks()[1:]:
        m = mask.sum()
        weight = gamma(m) * gamma(L - m + 1) / gamma(L + 1)
        bound += weight * masked_nats(source, SEQUENCES, np.broadcast_to(mask, SEQUENCES.shape)).sum(axis=1)
    assert law @ bound == pytest.approx(entropy(law), rel=1e-12)


def test_corrupted_symbols_have_their_enumerated_posterior(source):
    """Over three places: all true sequences, all selections that contain the place asked for."""
    sequences = np.array(list(itertools.product(range(V), repeat=3)))
    law = np.array([probability(source, sequence) for sequence in sequences])

    def seen_as(seen, true, selected):
        if not selected:
            return float(seen == true)
        return 0.8 * (seen == V) + 0.1 * (seen == true) + 0.1 / V * (seen < V)

    for seen in itertools.product(range(V + 1), repeat=3):
        for t in range(3):
            joint = np.zeros(V)
            for true, p in zip(sequences, law, strict=True):
                for selected in itertools.product([False, True], repeat=3):
                    if selected[t]:
                        q = np.prod([RATE if chosen else 1 - RATE for chosen in selected])
                        joint[true[t]] += p * q * np.prod([seen_as(*z) for z in zip(seen, true, selected, strict=True)])
            true = np.array([[0] * t + [v] + [0] * (2 - t) for v in range(V)])
            selection = np.broadcast_to(np.arange(3) == t, true.shape)
            found = corrupted_nats(source, true, np.broadcast_to(seen, true.shape), selection, RATE)
            np.testing.assert_allclose(found[:, t], -np.log(joint / joint.sum()), rtol=1e-10)
            assert not np.delete(found, t, axis=1).any()


def test_corruption_is_80_10_10(source):
    random = np.random.default_rng(3)
    sequences = np.full((50_000, 2), 1)
    selected = np.broadcast_to([True, False], sequences.shape)
    seen = corrupt(random, sequences, selected, V)
    assert (seen[:, 1] == 1).all()
    shares = np.bincount(seen[:, 0], minlength=V + 1) / len(seen)
    np.testing.assert_allclose(shares, [0.1 / V, 0.1 + 0.1 / V, 0.1 / V, 0.8], atol=0.007)


def test_samples_follow_the_law(source, law):
    random = np.random.default_rng(11)
    count = 20_000
    drawn = np.stack([source.sample(random, L) for _ in range(count)])
    assert drawn.dtype == np.int32
    counts = np.bincount(drawn @ V ** np.arange(L)[::-1], minlength=V**L)
    assert ((counts - count * law) ** 2 / (count * law)).sum() < V**L + 5 * np.sqrt(2 * V**L)  # χ², mean + 5 s.d.
