"""Masks filled: what is said of each, and mask-predict against its loop written out."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lmlab.generation.filling import candidates, gibbs, mask_predict

V, MASK = 11, 4
TABLES = np.random.default_rng(0).normal(size=(2, V, V)).astype(np.float32) * 2
TOKENS = np.array([[4, 4, 4, 4, 4, 4, 4], [1, 4, 2, 4, 4, 0, 4], [3, 5, 4, 9, 0, 7, 4], [1, 2, 3, 5, 6, 7, 8]])


class Neighbours:
    """Logits are a table of the left neighbour plus one of the right one, the row being a ring."""

    def encode(self, tokens: jax.Array, **given: object) -> jax.Array:
        left, right = (jax.nn.one_hot(jnp.roll(tokens, shift, axis=1), V) for shift in (1, -1))
        return jnp.concatenate([left, right], axis=-1)

    def project(self, states: jax.Array) -> jax.Array:
        return states @ TABLES.reshape(2 * V, V)


def law(row: np.ndarray) -> np.ndarray:
    """p of every token at every place, none for the mask, (T, V) float64."""
    logits = np.float64(TABLES[0])[np.roll(row, 1)] + np.float64(TABLES[1])[np.roll(row, -1)]
    p = np.exp(logits)
    p[:, MASK] = 0
    return p / p.sum(1, keepdims=True)


def filled(row: np.ndarray, steps: int) -> np.ndarray:
    """Section 3.2 of the paper, one row and one token after the other."""
    row, asked = row.copy(), np.flatnonzero(row == MASK)
    sure: dict[int, float] = {}
    for step in range(steps):
        count = len(asked) * (steps - step) // steps
        again = asked if step == 0 else sorted(asked, key=lambda t: sure[t])[:count]
        shown = row.copy()
        shown[again] = MASK
        p = law(shown)
        for t in again:
            row[t], sure[t] = p[t].argmax(), p[t].max()
    return row


def test_candidates_are_the_most_probable_tokens_but_the_mask() -> None:
    ids, shares = jax.jit(lambda t: candidates(Neighbours(), t, mask=MASK, count=V - 1))(TOKENS)
    for b, row in enumerate(TOKENS):
        p = law(row)
        np.testing.assert_allclose(shares[b], np.take_along_axis(p, np.asarray(ids[b]), 1), rtol=1e-4)
        assert all(sorted(places) == [i for i in range(V) if i != MASK] for places in np.asarray(ids[b]).tolist())
    assert (np.diff(shares, axis=-1) <= 0).all()


@pytest.mark.parametrize("steps", [1, 2, 3, 5, 11])
def test_the_masks_are_filled_as_the_paper_says(steps: int) -> None:
    found = np.asarray(jax.jit(lambda t: mask_predict(Neighbours(), t, mask=MASK, steps=steps))(TOKENS))
    np.testing.assert_array_equal(found, [filled(row, steps) for row in TOKENS])
    assert (found != MASK).all() and (found == TOKENS)[TOKENS != MASK].all()


def test_more_steps_change_what_was_filled() -> None:
    one, many = (mask_predict(Neighbours(), jnp.asarray(TOKENS), mask=MASK, steps=steps) for steps in (1, 5))
    assert (one != many).any()


W, MISSING = 3, 3
JOINT = np.random.default_rng(1).dirichlet([0.5] * W**3).reshape(W, W, W)
"""p of every row of three tokens of three ids; the mask is one more."""


def _given(place: int) -> np.ndarray:
    """p of the token at a place given each state of all three places, masks summed out: (4, 4, 4, W) float64."""
    law = np.zeros((W + 1, W + 1, W + 1, W))
    for state in np.ndindex(W + 1, W + 1, W + 1):
        seen = JOINT.copy()
        for axis, token in enumerate(state):
            if axis != place and token != MISSING:
                seen = np.where(np.expand_dims(np.arange(W) == token, [a for a in range(3) if a != axis]), seen, 0)
        law[state] = seen.sum(axis=tuple(a for a in range(3) if a != place)) / seen.sum()
    return law


class Field:
    """A masked language model whose laws are those of `JOINT`, exactly."""

    def encode(self, tokens: jax.Array, **given: object) -> jax.Array:
        laws = [jnp.asarray(_given(place), jnp.float32)[tuple(tokens.T)] for place in range(3)]
        return jnp.pad(jnp.log(jnp.stack(laws, 1)), ((0, 0), (0, 0), (0, 1)))

    def project(self, states: jax.Array) -> jax.Array:
        return states


@pytest.mark.parametrize("sweeps", [1, 4])
def test_gibbs_sampling_has_the_law_that_the_conditionals_have(sweeps: int) -> None:
    rows = 8000
    keys = jax.random.split(jax.random.key(0), rows)
    start = jnp.full((rows, 3), MISSING)
    found = np.asarray(jax.jit(lambda keys: gibbs(Field(), start, keys, mask=MISSING, sweeps=sweeps))(keys))
    shares = np.bincount(found @ [W * W, W, 1], minlength=W**3) / rows
    np.testing.assert_allclose(shares, JOINT.ravel(), atol=4.5 * np.sqrt(JOINT.max() / rows))


def test_gibbs_sampling_keeps_what_is_given_and_heeds_no_other_row() -> None:
    rows = jnp.asarray([[MISSING, 1, MISSING], [MISSING] * 3, [2, MISSING, 0], [0, 1, 2]])
    keys = jax.random.split(jax.random.key(1), 4)
    draw = jax.jit(lambda rows, keys: gibbs(Field(), rows, keys, mask=MISSING, sweeps=3))
    found = np.asarray(draw(rows, keys))
    assert (found < MISSING).all() and (found == rows)[np.asarray(rows) != MISSING].all()
    for b in range(4):
        np.testing.assert_array_equal(draw(rows[b : b + 1], keys[b : b + 1])[0], found[b])
    given = jnp.tile(rows[2:3], (8000, 1))
    drawn = np.asarray(draw(given, jax.random.split(jax.random.key(2), 8000)))[:, 1]
    np.testing.assert_allclose(np.bincount(drawn, minlength=W) / 8000, _given(1)[2, MISSING, 0], atol=0.025)
