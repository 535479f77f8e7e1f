"""Masked diffusion with a perfect denoiser, by enumeration: the bound is the likelihood, the samples have its law."""

from __future__ import annotations

import functools
import itertools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from lmlab.data.generated.hidden_markov import HiddenMarkov, autoregressive_nats
from lmlab.errors import ConfigError
from lmlab.generation.diffusion import unmask
from lmlab.losses.masked_diffusion import MaskedDiffusion

V, T, K = 3, 5, 2
MASK = V
SOURCE = HiddenMarkov.random(K, V, 0.3, seed=7)
ALL = np.array(list(itertools.product(range(V), repeat=T)))
NATS = autoregressive_nats(SOURCE, ALL).sum(1)
"""-log p of every sequence there is."""


class Oracle(nnx.Module):
    """p(token at t | all tokens that are not masked), by a sum over all sequences; the mask has a logit that lures."""

    def __init__(self, time: int = T) -> None:
        sequences = np.array(list(itertools.product(range(V), repeat=time)))
        self.sequences = jnp.asarray(sequences)
        self.p = jnp.exp(-jnp.asarray(autoregressive_nats(SOURCE, sequences).sum(1)))

    def encode(self, tokens: Any, *, segment_ids: Any = None, type_ids: Any = None, keys: Any = None) -> Any:
        fits = ((tokens[:, None] == MASK) | (tokens[:, None] == self.sequences)).all(-1)  # (B, sequences)
        return jnp.log(jnp.einsum("bs,stv->btv", fits * self.p, jax.nn.one_hot(self.sequences, V)) + 1e-30)

    def project(self, hidden: Any) -> Any:
        return jnp.concatenate([hidden, jnp.full((*hidden.shape[:-1], 1), 9.0)], -1)


def loss(**given: Any) -> MaskedDiffusion:
    return MaskedDiffusion(V + 1, {"mask": MASK}, **given)


def batch(rows: np.ndarray, weights: Any = None) -> dict[str, jax.Array]:
    ones = jnp.ones(rows.shape, jnp.int32)
    weights = ones.astype(jnp.float32) if weights is None else jnp.broadcast_to(jnp.asarray(weights), rows.shape)
    return {"tokens": jnp.asarray(rows), "segment_ids": ones, "weights": weights, "word_starts": ones > 0}


@functools.partial(jax.jit, static_argnums=(0, 1))
def bounds(noise: str, draws: int, rows: jax.Array, weights: jax.Array, keys: jax.Array) -> jax.Array:
    """The bound of each row, from draws of its own."""

    def one(row: jax.Array, weight: jax.Array, key: jax.Array) -> jax.Array:
        setting = loss(noise=noise, draws=draws, least_time=1e-4)
        return setting(Oracle(), batch(row[None], weight[None]), key[None], jnp.int32(0)).total

    return jax.vmap(one)(rows, weights, keys)


@pytest.mark.parametrize(("noise", "draws"), [("time", 1), ("time", 4), ("count", 1)])
def test_the_bound_of_a_perfect_denoiser_is_the_likelihood_of_each_sequence(noise: str, draws: int) -> None:
    copies = 4000
    for sequence in (17, 101):
        rows = jnp.tile(jnp.asarray(ALL[sequence]), (copies, 1))
        found = bounds(noise, draws, rows, jnp.ones(rows.shape), jax.random.split(jax.random.key(sequence), copies))
        error = float(found.std()) / copies**0.5
        assert error < 0.06 * NATS[sequence]
        assert abs(float(found.mean()) - NATS[sequence]) < 4 * error


def test_stratified_times_and_counts_vary_less() -> None:
    rows = jnp.tile(jnp.asarray(ALL[101]), (4000, 1))
    keys = jax.random.split(jax.random.key(1), 4000)
    spread = {
        (noise, draws): float(bounds(noise, draws, rows, jnp.ones(rows.shape), keys).std()) * draws**0.5
        for noise, draws in (("time", 1), ("time", 4), ("count", 1))
    }
    assert spread["count", 1] < spread["time", 1] and spread["time", 4] < spread["time", 1]


def test_tokens_that_may_not_be_masked_are_given() -> None:
    sequence, weights = ALL[101], np.array([1.0, 0, 0, 1.0, 0])
    same = (ALL[:, weights == 0] == sequence[weights == 0]).all(1)
    given = NATS[101] + np.log(np.exp(-NATS[same]).sum())  # -log p(masked | given)
    rows = jnp.tile(jnp.asarray(sequence), (4000, 1))
    keys = jax.random.split(jax.random.key(2), 4000)
    found = bounds("count", 1, rows, jnp.broadcast_to(jnp.asarray(weights), rows.shape), keys)
    assert abs(float(found.mean()) - given) < 4 * float(found.std()) / 4000**0.5


def test_masks_are_as_many_as_the_time_says() -> None:
    rows = np.zeros((5000, T), int)
    keys = jax.random.split(jax.random.key(3), len(rows))
    masked, factor = jax.jit(lambda keys: loss().noised(batch(rows), keys))(keys)
    time = 1 / np.asarray(factor)
    assert time.min() >= 1e-3 and time.max() <= 1 + 1e-6
    assert abs(time.mean() - 0.5) < 4 * (1 / 12 / len(rows)) ** 0.5
    early = np.asarray(masked)[time < 0.25]
    assert abs(early.mean() - 0.125) < 4 * (0.125 / early.size) ** 0.5 + 0.01


def test_an_evaluation_depends_on_the_rows_alone() -> None:
    rows = ALL[[5, 101, 30]]
    measure = jax.jit(lambda batch: loss(eval_draws=3)(Oracle(), batch, None, jnp.int32(0)))
    whole, swapped = measure(batch(rows)), measure(batch(rows[::-1]))
    np.testing.assert_allclose(whole.total, swapped.total, rtol=1e-5)
    assert whole.weight == 3 * T and whole.metrics["nelbo"][0] == whole.total


def test_samples_have_the_law_of_the_source() -> None:
    time, count = 3, 4000
    sequences = np.array(list(itertools.product(range(V), repeat=time)))
    p = np.exp(-autoregressive_nats(SOURCE, sequences).sum(1))
    keys = jax.random.split(jax.random.key(4), count)
    start = jnp.full((count, time), MASK)
    found = np.asarray(jax.jit(lambda keys: unmask(Oracle(time), start, keys, mask=MASK, steps=50))(keys))
    assert found.max() < V
    shares = np.bincount(found @ V ** np.arange(time)[::-1], minlength=V**time) / count
    # What tokens of one step do not know of each other is a fiftieth of their dependence.
    np.testing.assert_allclose(shares, p, atol=4 * np.sqrt(p.max() / count) + 0.006)


def test_what_is_given_stays() -> None:
    start = jnp.asarray([[1, MASK, MASK], [MASK, 2, MASK]])
    keys = jax.random.split(jax.random.key(5), 2)
    found = unmask(Oracle(3), start, keys, mask=MASK, steps=2)
    assert found[0, 0] == 1 and found[1, 1] == 2 and (found < V).all()


def test_without_a_mask_there_is_one_clear_line() -> None:
    with pytest.raises(ConfigError, match="needs an id for 'mask'"):
        MaskedDiffusion(V, {"end_of_text": 2})
