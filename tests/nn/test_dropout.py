"""Dropout: masks that belong to rows, rates that may be traced."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np

from lmlab.nn.dropout import Dropout, LockedDropout, WordDropout

B, T, D = 5, 7, 11


def keys() -> jax.Array:
    return jax.random.split(jax.random.key(3), B)


def test_a_rows_mask_does_not_depend_on_the_other_rows() -> None:
    x = jnp.ones((B, T, D))
    whole = Dropout(0.4)(x, keys(), 2)
    parts = [Dropout(0.4)(x[rows], keys()[rows], 2) for rows in (slice(0, 2), slice(2, 3), slice(3, B))]
    np.testing.assert_array_equal(whole, jnp.concatenate(parts))


def test_rows_and_sites_have_different_masks() -> None:
    x = jnp.ones((B, T, D))
    first, second = Dropout(0.5)(x, keys(), 0), Dropout(0.5)(x, keys(), 1)
    assert not np.array_equal(first, second)
    assert not np.array_equal(first[0], first[1])


def test_entries_are_dropped_at_the_rate_and_the_mean_is_kept() -> None:
    x = jnp.ones((B, 101, 103))
    y = Dropout(0.3)(x, keys(), 0)
    assert abs(float((y == 0).mean()) - 0.3) < 0.01
    assert abs(float(y.mean()) - 1) < 0.01
    np.testing.assert_allclose(np.unique(y), [0, 1 / 0.7], rtol=1e-6)


def test_without_keys_it_is_the_identity() -> None:
    x = jnp.ones((B, T))
    assert Dropout(0.9)(x, None, 0) is x


def test_a_traced_rate_gives_the_mask_of_the_number() -> None:
    x = jnp.ones((B, T, D))
    rates = jnp.array([0.0, 0.25, 0.6])
    traced = jax.jit(jax.vmap(lambda rate: Dropout(rate)(x, keys(), 1)))(rates)
    for rate, y in zip([0.0, 0.25, 0.6], traced, strict=True):
        np.testing.assert_allclose(y, Dropout(rate)(x, keys(), 1), rtol=1e-6)


def test_a_locked_mask_is_that_of_all_steps_and_one_of_the_row() -> None:
    keys, x = jax.random.split(jax.random.key(1), 3), jnp.arange(1.0, 3 * 7 * 11 + 1).reshape(3, 7, 11)
    kept = LockedDropout(0.4)(x, keys, 2) / x
    np.testing.assert_allclose(kept, jnp.broadcast_to(kept[:, :1], x.shape), rtol=1e-6)
    assert set(np.unique(np.round(kept * 0.6, 4)).tolist()) == {0.0, 1.0}
    assert not np.array_equal(kept[0], kept[1])
    np.testing.assert_allclose(LockedDropout(0.4)(x[1:2], keys[1:2], 2)[0], (kept * x)[1], rtol=1e-6)


def test_a_dropped_word_is_dropped_wherever_in_the_row_it_stands() -> None:
    tokens = jax.random.randint(jax.random.key(2), (5, 41), 0, 13)
    keys, x = jax.random.split(jax.random.key(3), 5), jnp.ones((5, 41, 2))
    kept = np.asarray(WordDropout(0.3).of_words(x, tokens, keys, 1))
    assert set(np.unique(kept)) == {0.0, np.float32(1 / np.float32(0.7))}
    for row in range(5):
        for token in range(13):
            assert len(np.unique(kept[row][np.asarray(tokens[row]) == token])) <= 1
    many = WordDropout(0.3).of_words(jnp.ones((1, 4001, 1)), jnp.arange(4001)[None], keys[:1], 1)
    assert abs(float((many == 0).mean()) - 0.3) < 0.03
    assert WordDropout(0.3).of_words(x, tokens, None, 1) is x
