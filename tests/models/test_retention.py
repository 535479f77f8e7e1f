"""Linear attention and retention, against their quadratic forms written out in float64 NumPy."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lmlab.errors import ConfigError
from lmlab.models.linear_attention import LinearTransformer
from lmlab.models.retention import RetNet
from lmlab.nn.functional import ModelDef
from tests.drawn import drawn

V, T, B, D, H, L = 17, 11, 2, 12, 3, 2
K = D // H
SEGMENTS = np.array([[1] * 5 + [2] * 6, [1] * 2 + [2] * 7 + [0] * 2])
PLACES = np.array([[*range(5), *range(6)], [*range(2), *range(7), *range(2)]])


def model_named(name: str, **given: Any) -> ModelDef[Any]:
    sizes = {"width": D, "heads": H, "layers": L, "chunk": 4, "init_std": 0.4, **given}
    if name == "retention":
        return ModelDef.of(lambda rngs: RetNet(V, jnp.float32, rngs, **sizes))
    return ModelDef.of(lambda rngs: LinearTransformer(V, T, jnp.float32, rngs, **sizes))


class Case:
    """A model with parameters away from their start, and what it makes of some tokens in one call."""

    def __init__(self, name: str) -> None:
        self.name, self.model = name, model_named(name)
        self.params = drawn(self.model, std=0.4)
        self.tokens = np.random.default_rng(1).integers(0, V, (B, T))
        # In pieces, the second row stops in the middle of the first one.
        there = (np.arange(6) < np.array([[6], [4]])).astype(np.int32)

        @jax.jit
        def read(params: Any) -> Any:
            bound = self.model.bind(params)
            packed = bound.logits(self.tokens, segment_ids=SEGMENTS, positions=PLACES)
            _, cache = bound.hidden(self.tokens[:, :6], segment_ids=there, cache=bound.init_cache(B, T))
            states, cache = bound.hidden(self.tokens[np.arange(B), there.sum(1)][:, None], cache=cache)
            return bound.logits(self.tokens), packed, bound.project(states[:, 0]), cache.length

        self.logits, self.packed, self.after_pieces, self.length = read(self.params)

    def written_out(self, segments: np.ndarray, places: np.ndarray) -> np.ndarray:
        """Logits of all rows, with the whole (T, T) matrix of every head."""
        p = {path: np.asarray(value, np.float64) for path, value in self.params.items()}
        return np.stack([self._row(p, *row) for row in zip(self.tokens, segments, places, strict=True)])

    def _row(self, p: dict[str, np.ndarray], ids: np.ndarray, segments: np.ndarray, places: np.ndarray) -> np.ndarray:
        def norm(x, path, layer=...):
            x = x - x.mean(-1, keepdims=True)
            y = x / np.sqrt((x**2).mean(-1, keepdims=True) + 1e-5)
            return y * p[f"{path}/scale"][layer] + p[f"{path}/bias"][layer]

        def linear(x, path, layer):
            return x @ p[f"{path}/kernel"][layer] + p.get(f"{path}/bias", np.zeros(L))[layer]

        def turn(x):
            z = x[:, : K // 2] + 1j * x[:, K // 2 :]
            z = z * np.exp(1j * places[:, None] * 10_000.0 ** (-np.arange(K // 2) * 2 / K))
            return np.concatenate([z.real, z.imag], -1)

        seen = (segments[:, None] == segments) & np.tri(T, dtype=bool)
        ages = np.arange(T)[:, None] - np.arange(T)
        x = p["embedding/embedding"][ids]
        if self.name != "retention":
            x = x + p["positions/embedding"][places]
        for layer in range(L):
            y, mixed = norm(x, "blocks/norm", layer), []
            for h in range(H):
                if self.name == "retention":
                    q, k = linear(y, "blocks/mixer/qk", layer).reshape(T, H, 2, K)[:, h].swapaxes(0, 1)
                    v = linear(y, "blocks/mixer/v", layer).reshape(T, H, 2 * K)[:, h]
                    scores = np.where(seen, (1 - 2.0 ** (-5 - h)) ** ages, 0) * (turn(q) @ turn(k).T) / np.sqrt(K)
                    z = scores @ v
                    z = (z - z.mean(-1, keepdims=True)) / np.sqrt(z.var(-1, keepdims=True) + 1e-5)
                    scale, bias = (p[f"blocks/mixer/norm/{name}"][layer, h] for name in ("scale", "bias"))
                    mixed.append(z * scale + bias)
                else:
                    q, k, v = linear(y, "blocks/mixer/qkv", layer).reshape(T, H, 3, K)[:, h].swapaxes(0, 1)
                    q, k = (np.where(f > 0, f + 1, np.exp(f)) for f in (q, k))
                    scores = np.where(seen, q @ k.T, 0)
                    mixed.append(scores @ v / scores.sum(-1, keepdims=True))
            z = np.concatenate(mixed, -1)
            if self.name == "retention":
                gate = linear(y, "blocks/mixer/gate", layer)
                z = z * gate / (1 + np.exp(-gate))
            x = x + linear(z, "blocks/mixer/out", layer)
            y = linear(norm(x, "blocks/mlp_norm", layer), "blocks/mlp/up", layer)
            y = 0.5 * y * (1 + np.tanh(np.sqrt(2 / np.pi) * (y + 0.044715 * y**3)))
            x = x + linear(y, "blocks/mlp/down", layer)
        return norm(x, "norm") @ p["embedding/embedding"].T


@pytest.fixture(scope="module", params=["linear_attention", "retention"])
def case(request: pytest.FixtureRequest) -> Case:
    return Case(request.param)


def test_logits_are_those_of_the_quadratic_form(case: Case) -> None:
    wanted = case.written_out(np.ones((B, T)), np.tile(np.arange(T), (B, 1)))
    np.testing.assert_allclose(case.logits, wanted, atol=3e-5 * np.abs(wanted).max())


def test_documents_that_begin_inside_of_chunks_stay_apart(case: Case) -> None:
    wanted = case.written_out(SEGMENTS, PLACES)
    np.testing.assert_allclose(case.packed, wanted, atol=3e-5 * np.abs(wanted).max())


def test_the_recurrent_form_is_the_quadratic_one_for_rows_of_different_lengths(case: Case) -> None:
    wanted = case.written_out(np.ones((B, T)), np.tile(np.arange(T), (B, 1)))[np.arange(B), [6, 4]]
    np.testing.assert_allclose(case.after_pieces, wanted, atol=3e-5 * np.abs(wanted).max())
    np.testing.assert_array_equal(case.length, [7, 5])


@pytest.mark.parametrize("name", ["linear_attention", "retention"])
def test_heads_that_do_not_divide_the_width_are_refused(name: str) -> None:
    with pytest.raises(ConfigError, match=rf"{name}.width = 12 does not divide into {name}.heads = 5"):
        model_named(name, heads=5)


def test_more_tokens_than_learned_positions_are_refused() -> None:
    limited, free = (model_named(name, layers=1) for name in ("linear_attention", "retention"))
    with pytest.raises(ConfigError, match=r"at most experiment.seq_len = 11 tokens, not 12"):
        jax.eval_shape(lambda params: limited.bind(params).init_cache(1, T + 1), limited.shapes)
    jax.eval_shape(lambda params: free.bind(params).init_cache(1, T + 1), free.shapes)
