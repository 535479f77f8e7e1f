"""Bounds against the exact marginal by quadrature, mutual information against integrals."""

import functools

import jax
import jax.numpy as jnp
import numpy as np

from lmlab.evaluation.latent_report import active_units, measured_rows, mutual_information
from lmlab.losses.elbo import nats_given
from lmlab.models.text_vae import TextVAE
from lmlab.nn.functional import ModelDef

V, T, N = 5, 3, 25
MODEL = ModelDef.of(lambda rngs: TextVAE(V, 7, jnp.float32, rngs, latent=1, embedding=3, width=7))
DRAW = np.random.default_rng(3)
PARAMS = {path: DRAW.normal(0, 1.5, shape.shape).astype(np.float32) for path, shape in MODEL.shapes.items()}
PARAMS["encoder/posterior/kernel"] *= 0.08  # posteriors near the prior: importance weights that a sample can average
SPACING = 0.02
GRID = np.arange(-8, 8 + SPACING / 2, SPACING)


def batch_of(texts):
    """Texts of 3 predictions after the id 0."""
    tokens = np.pad(texts[:, :-1], ((0, 0), (1, 0))).astype(np.int32)
    return {"tokens": tokens, "targets": texts.astype(np.int32), "weights": np.ones((len(texts), T), np.float32)}


ALL = np.stack(np.meshgrid(*[np.arange(V)] * T), -1).reshape(-1, T)


@functools.cache
def exact():
    """-log p(text) of all texts, by quadrature over z, in float64."""

    @jax.jit
    def nats(z):
        return nats_given(MODEL.bind(PARAMS), batch_of(ALL), jnp.full((len(ALL), 1), z), None)

    given = np.float64(jax.lax.map(nats, jnp.float32(GRID)))
    prior = np.exp(-0.5 * GRID**2) / np.sqrt(2 * np.pi)
    return -np.log((np.exp(-given) * prior[:, None]).sum(0) * SPACING)


def bounds(texts, samples):
    return jax.device_get(jax.jit(lambda p: measured_rows(MODEL.bind(p), batch_of(texts), samples))(PARAMS))


def test_the_exact_likelihoods_of_all_texts_add_up_to_one():
    np.testing.assert_allclose(np.exp(-exact()).sum(), 1, atol=1e-5)


def test_bounds_come_down_to_the_exact_likelihood_and_never_cross():
    found = {k: bounds(ALL, k) for k in (1, 5, 50, 2000)}
    means = [rows.weighted.mean() for rows in found.values()]
    np.testing.assert_allclose(found[1].weighted, found[1].elbo, atol=2e-6)
    for rows in found.values():
        assert (rows.weighted <= rows.elbo + 1e-5).all()
    # Monotone in expectation: each mean is over 125 texts, and the steps are far larger than their error.
    assert means == sorted(means, reverse=True) and means[0] - means[1] > 0.1, means
    np.testing.assert_allclose(found[2000].weighted, exact(), atol=0.15)
    np.testing.assert_allclose(means[-1], exact().mean(), atol=0.01)
    assert found[2000].elbo.mean() > exact().mean() + 0.1


def test_the_elbo_is_below_by_the_divergence_from_the_true_posterior():
    """-ELBO(x) = -log p(x) + KL(q || p(z | x)), both sides by quadrature; the evaluator by its draws."""
    rows, some = bounds(ALL, 2000), slice(0, 125, 31)
    given = np.float64(
        jax.jit(jax.vmap(lambda z: nats_given(MODEL.bind(PARAMS), batch_of(ALL[some]), jnp.full((5, 1), z), None)))(
            jnp.float32(GRID)
        )
    )
    mean, variance = rows.mean[some, 0], np.exp(rows.log_variance[some, 0])
    log_q = -0.5 * ((GRID[:, None] - mean) ** 2 / variance + np.log(2 * np.pi * variance))
    log_joint = -given - 0.5 * (GRID[:, None] ** 2 + np.log(2 * np.pi))
    elbo = -(np.exp(log_q) * (log_joint - log_q)).sum(0) * SPACING
    np.testing.assert_allclose(rows.elbo[some], elbo, atol=0.25)
    assert (elbo > exact()[some]).all()


def test_a_dimension_is_active_if_its_mean_varies_over_the_texts():
    signs = np.where(np.arange(N - 1) % 2, 1.0, -1.0)[:, None]
    means = signs * np.sqrt([0.02, 0.009, 0.0, 4.0]) + [0.0, 5.0, -3.0, 1.0]  # of variances 0.02, 0.009, 0 and 4
    assert active_units(means) == 2 and active_units(means, above=0.005) == 3 and active_units(means, above=1) == 1


def test_a_posterior_that_ignores_the_text_has_no_information():
    rest = np.tile([[0.3, -0.2]], (N, 1))
    np.testing.assert_allclose(mutual_information(rest, rest), 0, atol=0.35)
    assert abs(np.mean([mutual_information(rest, rest, seed) for seed in range(400)])) < 0.03


def test_posteriors_far_apart_tell_all_texts_apart():
    mean, log_variance = np.arange(N)[:, None] * 100.0, np.zeros((N, 1))
    found = np.mean([mutual_information(mean, log_variance, seed) for seed in range(400)])
    np.testing.assert_allclose(found, np.log(N), atol=0.02)


def test_the_information_of_two_overlapping_posteriors_is_the_integral():
    mean, log_variance = np.array([[-0.8], [1.1]]), np.log([[0.5], [1.7]])
    grid = np.linspace(-20, 20, 40_001)
    laws = np.exp(-0.5 * (grid - mean) ** 2 / np.exp(log_variance)) / np.sqrt(2 * np.pi * np.exp(log_variance))
    with np.errstate(divide="ignore", invalid="ignore"):
        terms = np.where(laws > 0, laws * np.log(laws / laws.mean(0)), 0)
    expected = terms.sum() / 2 * (grid[1] - grid[0])
    found = np.mean([mutual_information(mean, log_variance, seed) for seed in range(4000)])
    np.testing.assert_allclose(found, expected, atol=0.03)
