"""The neural probabilistic language model, against its equation in float64, token by token."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lmlab.models.nplm import NPLM
from lmlab.nn.functional import ModelDef
from tests.drawn import drawn

V, T, B, M, H, ORDER = 17, 13, 2, 3, 7, 4


def nplm(**given: Any) -> ModelDef[NPLM]:
    sizes = {"order": ORDER, "embedding_width": M, "width": H, "direct": True, **given}
    return ModelDef.of(lambda rngs: NPLM(V, jnp.float32, rngs, **sizes))


@pytest.fixture(scope="module")
def params() -> dict[str, jax.Array]:
    return drawn(nplm(), std=0.6)


@pytest.fixture(scope="module")
def tokens() -> np.ndarray:
    return np.random.default_rng(1).integers(0, V, (B, T))


def equation(params: dict[str, jax.Array], seen: np.ndarray, direct: bool) -> np.ndarray:
    """b + W x + U tanh(d + H x) after the tokens `seen`, (V,) float64."""
    p = {path: np.asarray(value, np.float64) for path, value in params.items()}
    vectors = [np.zeros(M)] * (ORDER - 1) + [p["embedding/embedding"][token] for token in seen]
    x = np.concatenate(vectors[-(ORDER - 1) :])
    logits = p["head/bias"] + p["head/kernel"][:H].T @ np.tanh(p["layer/bias"] + p["layer/kernel"].T @ x)
    return logits + p["head/kernel"][H:].T @ x if direct else logits


@pytest.mark.parametrize("direct", [True, False])
def test_logits_are_those_of_the_equation(params, tokens, direct) -> None:
    own = params if direct else params | {"head/kernel": params["head/kernel"][:H]}
    found = jax.jit(nplm(direct=direct).bind(own).logits)(tokens)
    expected = [[equation(own, row[: t + 1], direct) for t in range(T)] for row in tokens]
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_a_document_knows_nothing_of_the_one_before(params, tokens) -> None:
    documents = np.where(np.arange(T) < 5, 1, 2) * np.ones((B, 1), np.int32)
    found = jax.jit(nplm().bind(params).logits)(tokens, segment_ids=documents)
    expected = [[equation(params, row[5 if t > 4 else 0 : t + 1], True) for t in range(T)] for row in tokens]
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_rows_of_different_lengths_share_a_cache(params, tokens) -> None:
    model, lengths = nplm().bind(params), np.array([5, 2])
    read = jax.jit(model.hidden)
    there = (np.arange(5) < lengths[:, None]).astype(np.int32)
    _, cache = read(tokens[:, :5], segment_ids=there, cache=model.init_cache(B, T))
    for step in range(3):
        next_tokens = tokens[np.arange(B), lengths + step][:, None]
        hidden, cache = read(next_tokens, cache=cache)
        expected = [equation(params, tokens[b, : lengths[b] + step + 1], True) for b in range(B)]
        np.testing.assert_allclose(model.project(hidden[:, 0]), expected, atol=1e-5)
    np.testing.assert_array_equal(cache.length, lengths + 3)


def test_it_has_as_many_parameters_as_the_equation() -> None:
    """|V| (1 + n m + h) + h (1 + (n - 1) m) with direct connections; |V| (n - 1) m fewer without."""
    n, m, h = 5, 30, 100
    sizes = {"order": n, "embedding_width": m, "width": h}
    for direct in (True, False):
        shapes = nplm(direct=direct, **sizes).shapes
        words = V * (1 + (n * m if direct else m) + h)
        assert sum(np.prod(shape.shape) for shape in shapes.values()) == words + h * (1 + (n - 1) * m)
