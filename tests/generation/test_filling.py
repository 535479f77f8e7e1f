"""Masks filled: what is said of each, and mask-predict against its loop written out."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lmlab.generation.filling import candidates, mask_predict

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
