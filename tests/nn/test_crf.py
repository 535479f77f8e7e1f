"""A linear-chain CRF against the sum over all sequences of tags."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from lmlab.nn.crf import LinearChainCRF

B, T, C = 5, 4, 3
LENGTHS = (4, 2, 1, 0, 3)


@pytest.fixture(scope="module")
def case():
    """A CRF with drawn scores, emissions, tags, and which places are there."""
    drawn = np.random.default_rng(0)
    crf = LinearChainCRF(C)
    for param in (crf.transitions, crf.first, crf.last):
        param[...] = jnp.asarray(drawn.normal(size=param.shape), jnp.float32)
    there = np.arange(T) < np.array(LENGTHS)[:, None]
    emissions, tags = drawn.normal(size=(B, T, C)).astype(np.float32), drawn.integers(0, C, (B, T))
    return crf, emissions, tags, there


def score(crf, emissions, tags):
    """The exponent for one sequence, in float64."""
    transitions, first, last = (np.asarray(p[...], np.float64) for p in (crf.transitions, crf.first, crf.last))
    total = first[tags[0]] + last[tags[-1]] + sum(emissions[t, tag] for t, tag in enumerate(tags))
    return total + sum(transitions[a, b] for a, b in itertools.pairwise(tags))


def test_probability_and_best_tags_are_those_of_brute_force(case):
    crf, emissions, tags, there = case
    found = np.asarray(jax.jit(crf.log_probability)(emissions, tags, there))
    best = np.asarray(jax.jit(crf.best)(emissions, there))
    for b, length in enumerate(LENGTHS):
        if length == 0:
            assert found[b] == 0
            continue
        all_scores = {
            path: score(crf, emissions[b].astype(np.float64), path)
            for path in itertools.product(range(C), repeat=length)
        }
        log_z = np.log(sum(np.exp(value) for value in all_scores.values()))
        assert found[b] == pytest.approx(all_scores[tuple(tags[b, :length].tolist())] - log_z, rel=1e-5)
        assert tuple(best[b, :length].tolist()) == max(all_scores, key=all_scores.__getitem__)


def test_the_gradient_of_emissions_is_what_happened_minus_what_was_expected(case):
    """∂ log p / ∂ emission[t, c] = 1[y_t = c] - p(y_t = c), the marginal by brute force; none behind the end."""
    crf, emissions, tags, there = case
    graphdef, params = nnx.split(crf)

    def total(emissions):
        return nnx.merge(graphdef, params).log_probability(emissions, tags, there).sum()

    gradient = np.asarray(jax.jit(jax.grad(total))(emissions))
    for b, length in enumerate(LENGTHS):
        wanted, weights = np.zeros((T, C)), 0.0
        for path in itertools.product(range(C), repeat=length) if length else ():
            weight = np.exp(score(crf, emissions[b].astype(np.float64), path))
            wanted[range(length), path] -= weight
            weights += weight
        wanted /= weights or 1
        wanted[range(length), tags[b, :length]] += 1
        np.testing.assert_allclose(gradient[b], wanted if length else 0, atol=2e-6)
