"""Laws of samplers."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from lmlab.testing.tiny import Tiny

B, V = 31, 13


def draws_ids(tiny: Tiny) -> None:
    """One id of the vocabulary per row, int32, the same with and without jit."""
    sampler, logits, keys = tiny.alone().build(), _logits(3.0), _keys()
    drawn = sampler(logits, keys)
    assert drawn.shape == (B,) and drawn.dtype == jnp.int32, f"got {drawn.dtype}{drawn.shape}"
    assert ((drawn >= 0) & (drawn < V)).all()
    np.testing.assert_array_equal(jax.jit(lambda x, k: sampler(x, k))(logits, keys), drawn)


def takes_a_certain_token(tiny: Tiny) -> None:
    """Where one token has all the probability, it is taken."""
    best = np.arange(B) % V
    logits = jnp.where(jnp.arange(V) == best[:, None], 0.0, -1e9)
    np.testing.assert_array_equal(tiny.alone().build()(logits, _keys()), best)


def never_draws_the_impossible(tiny: Tiny) -> None:
    """A token with a logit of minus infinity is not drawn."""
    logits = _logits(0.1).at[:, ::2].set(-jnp.inf)
    assert (tiny.alone().build()(logits, _keys()) % 2 == 1).all()


def treats_rows_alone(tiny: Tiny) -> None:
    """A row's token depends on its own logits and key only."""
    sampler, logits, keys = tiny.alone().build(), _logits(1.0), _keys()
    alone = [int(sampler(logits[b : b + 1], keys[b : b + 1])[0]) for b in range(5)]
    np.testing.assert_array_equal(sampler(logits, keys)[:5], alone)


def _logits(scale: float) -> jax.Array:
    return jnp.asarray(np.random.default_rng(7).normal(size=(B, V)) * scale, jnp.float32)


def _keys() -> Any:
    return jax.random.split(jax.random.key(7), B)


LAWS = (draws_ids, takes_a_certain_token, never_draws_the_impossible, treats_rows_alone)
