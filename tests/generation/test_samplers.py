"""Samplers against frequencies and truncations computed in NumPy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lmlab.errors import ConfigError
from lmlab.generation.samplers import Greedy, Sample

V = 7
LOGITS = np.log(np.array([0.30, 0.05, 0.20, 0.01, 0.25, 0.15, 0.04]))


def draw(sampler, count=5000, logits=LOGITS):
    keys = jax.random.split(jax.random.key(3), count)
    return np.asarray(
        jax.jit(sampler.__call__)(jnp.broadcast_to(jnp.asarray(logits, jnp.float32), (count, len(logits))), keys)
    )


def frequencies(ids):
    return np.bincount(ids, minlength=V) / len(ids)


def softmax(logits):
    p = np.exp(logits - logits.max())
    return p / p.sum()


@pytest.mark.parametrize("temperature", [1.0, 0.5, 2.0])
def test_a_sample_follows_the_tempered_distribution(temperature):
    assert np.abs(frequencies(draw(Sample(temperature=temperature))) - softmax(LOGITS / temperature)).max() < 0.03


def test_temperature_zero_is_greedy_also_when_traced():
    logits = jnp.asarray(np.random.default_rng(0).normal(size=(11, V)), jnp.float32)
    keys = jax.random.split(jax.random.key(0), 11)
    traced = jax.jit(lambda temperature: Sample(temperature=temperature)(logits, keys))(0.0)
    np.testing.assert_array_equal(traced, np.argmax(logits, axis=-1))
    np.testing.assert_array_equal(Sample(temperature=0.0)(logits, keys), Greedy()(logits, keys))


def test_a_tiny_temperature_is_greedy_and_makes_no_nan():
    assert set(draw(Sample(temperature=1e-30))) == {0}


def test_top_k_draws_only_the_k_best_in_their_proportions():
    kept = np.where(np.isin(np.arange(V), [0, 4, 2]), LOGITS, -np.inf)
    assert np.abs(frequencies(draw(Sample(top_k=3))) - softmax(kept)).max() < 0.03


def test_top_k_beyond_the_vocabulary_keeps_all():
    assert np.abs(frequencies(draw(Sample(top_k=1000))) - softmax(LOGITS)).max() < 0.03


@pytest.mark.parametrize(
    ("p", "kept"), [(0.2, [0]), (0.31, [0, 4]), (0.74, [0, 4, 2]), (0.89, [0, 4, 2, 5]), (1.0, range(V))]
)
def test_the_nucleus_is_the_fewest_tokens_that_reach_the_mass(p, kept):
    expected = softmax(np.where(np.isin(np.arange(V), list(kept)), LOGITS, -np.inf))
    assert np.abs(frequencies(draw(Sample(top_p=p))) - expected).max() < 0.03


def test_the_nucleus_is_taken_among_the_top_k():
    assert set(draw(Sample(top_k=2, top_p=0.6))) == {0, 4}  # 0.30 / 0.55 alone is below 0.6
    assert set(draw(Sample(top_k=2, top_p=0.5))) == {0}


@pytest.mark.parametrize(
    ("temperature", "p", "kept"),
    [
        (1.0, 0.0, range(V)),
        (1.0, 0.15, [0, 2, 4, 5, 1]),
        (1.0, 0.6, [0, 2, 4]),
        (2.0, 0.6, [0, 2, 4, 5]),
        (1.0, 1.0, [0]),
    ],
)
def test_min_p_keeps_what_is_so_many_times_as_probable_as_the_best(temperature, p, kept):
    tempered = LOGITS / temperature
    np.testing.assert_array_equal(sorted(kept), np.flatnonzero(np.exp(tempered - tempered.max()) >= p))
    expected = softmax(np.where(np.isin(np.arange(V), list(kept)), tempered, -np.inf))
    assert np.abs(frequencies(draw(Sample(temperature=temperature, min_p=p))) - expected).max() < 0.03
    assert set(draw(Sample(temperature=temperature, min_p=p), 300)) <= set(kept)


def test_traced_top_p_and_temperature_are_one_program_for_all_values():
    logits = jnp.asarray(np.random.default_rng(1).normal(size=(5, V)), jnp.float32)
    keys = jax.random.split(jax.random.key(1), 5)
    run = jax.jit(lambda t, p: Sample(temperature=t, top_p=p)(logits, keys))
    for t, p in [(1.0, 1.0), (0.7, 0.5), (1.5, 0.9)]:
        np.testing.assert_array_equal(run(t, p), Sample(temperature=t, top_p=p)(logits, keys))
    assert run._cache_size() == 1


def test_a_row_depends_on_its_own_logits_and_key_only():
    logits = jnp.asarray(np.random.default_rng(2).normal(size=(5, V)), jnp.float32)
    keys = jax.random.split(jax.random.key(2), 5)
    sampler = Sample(top_k=5, top_p=0.9)
    np.testing.assert_array_equal(sampler(logits, keys)[3:4], sampler(logits[3:4], keys[3:4]))


def test_what_stands_in_the_text_is_penalised_whatever_its_sign_and_nothing_that_comes_later():
    logits = np.array([[2.0, -2.0, 0.5, -0.5, 0.0], [1.0, 2.0, 3.0, 4.0, 5.0]], np.float32)
    tokens, known = np.array([[0, 1, 0, 3], [4, 4, 2, 1]]), np.array([[True] * 3 + [False]] * 2)
    weighed = jax.jit(lambda r: Sample(repetition_penalty=r).weighed(logits, tokens, known))
    wanted = [[2 / 1.6, -2 * 1.6, 0.5, -0.5, 0.0], [1.0, 2.0, 3 / 1.6, 4.0, 5 / 1.6]]
    np.testing.assert_allclose(weighed(1.6), wanted, rtol=1e-6)
    np.testing.assert_array_equal(weighed(1.0), logits)
    np.testing.assert_array_equal(Sample().weighed(logits, tokens, known), logits)


@pytest.mark.parametrize(
    "wrong",
    [
        {"top_k": 0},
        {"temperature": -1.0},
        {"top_p": 0.0},
        {"top_p": 1.5},
        {"min_p": -0.1},
        {"min_p": 1.1},
        {"repetition_penalty": 0.0},
        {"repetition_penalty": float("inf")},
        {"temperature": float("nan")},
    ],
)
def test_impossible_numbers_are_refused_by_name(wrong):
    with pytest.raises(ConfigError, match=f"sample.{next(iter(wrong))}"):
        Sample(**wrong)
