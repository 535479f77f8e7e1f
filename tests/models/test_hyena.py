"""Hyena, against sums over all pairs of tokens written out in float64 NumPy."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lmlab.errors import ConfigError
from lmlab.models.hyena import Hyena
from lmlab.nn.functional import ModelDef
from lmlab.nn.long_convolution import long_convolution
from tests.drawn import drawn

V, T, B, D, L, N, TAPS, F, HIDDEN = 17, 19, 2, 5, 2, 2, 3, 5, 7
SEGMENTS = np.array([[1] * 11 + [2] * 8, [1] * 3 + [2] * 10 + [3] * 4 + [0] * 2])


def hyena(**given: Any) -> ModelDef[Hyena]:
    sizes = {"width": D, "layers": L, "order": N, "taps": TAPS, "init_std": 0.4, "filter_features": F, **given}
    return ModelDef.of(lambda rngs: Hyena(V, T, jnp.float32, rngs, filter_hidden=HIDDEN, **sizes))


class Case:
    """Parameters away from their start, tokens, and what the model makes of them."""

    def __init__(self) -> None:
        model = hyena()
        self.params = drawn(model, std=0.4)
        self.tokens = np.random.default_rng(1).integers(0, V, (B, T))
        there = (np.arange(12) < np.array([[12], [7]])).astype(np.int32)

        @jax.jit
        def read(params: Any) -> Any:
            bound = model.bind(params)
            _, cache = bound.hidden(self.tokens[:, :12], segment_ids=there, cache=bound.init_cache(B, T))
            states, cache = bound.hidden(self.tokens[np.arange(B), there.sum(1)][:, None], cache=cache)
            packed = bound.logits(self.tokens, segment_ids=SEGMENTS)
            return bound.logits(self.tokens), packed, bound.project(states[:, 0]), cache.length

        self.logits, self.packed, self.after_pieces, self.length = read(self.params)

    def written_out(self, segments: np.ndarray) -> np.ndarray:
        """Logits of all rows."""
        p = {path: np.asarray(value, np.float64) for path, value in self.params.items()}
        return np.stack([self._row(p, *row) for row in zip(self.tokens, segments, strict=True)])

    def _row(self, p: dict[str, np.ndarray], ids: np.ndarray, segments: np.ndarray) -> np.ndarray:
        def norm(x, path, layer=...):
            x = x - x.mean(-1, keepdims=True)
            y = x / np.sqrt((x**2).mean(-1, keepdims=True) + 1e-5)
            return y * p[f"{path}/scale"][layer] + p[f"{path}/bias"][layer]

        def linear(x, path, layer):
            return x @ p[f"{path}/kernel"][layer] + p.get(f"{path}/bias", np.zeros(L))[layer]

        def filters(layer):
            lag = np.arange(T)[:, None]
            angle = 2 * np.pi * lag / T * np.array([1e-4, 1.0])
            x = np.hstack([lag / (T - 1), np.cos(angle), -np.sin(angle)])
            frequency = p["blocks/mixer/filters/frequency"][layer]
            x = np.sin(frequency * linear(x, "blocks/mixer/filters/first", layer))
            x = np.sin(frequency * linear(x, "blocks/mixer/filters/second", layer))
            window = 0.01 ** (lag / (T - 1) / np.array([1 / a for a in np.linspace(1 / 1.5, 1 / 0.3, N * D)]))
            return (linear(x, "blocks/mixer/filters/last", layer) * window).reshape(T, N, D)

        def convolve(x, h):
            y = np.zeros_like(x)
            for t in range(T):
                for s in range(max(0, t - len(h) + 1), t + 1):
                    y[t] += h[t - s] * x[s] * (segments[s] == segments[t])
            return y

        x = p["embedding/embedding"][ids]
        for layer in range(L):
            u = linear(norm(x, "blocks/norm", layer), "blocks/mixer/input", layer)
            short = p["blocks/mixer/short/kernel"][layer][::-1]
            v, *gates = np.split(convolve(u, short) + p["blocks/mixer/short/bias"][layer], N + 1, -1)
            h = filters(layer)
            for n, gate in enumerate(gates):
                v = gate * (convolve(v, h[:, n]) + p["blocks/mixer/direct"][layer, n] * v)
            x = x + linear(v, "blocks/mixer/out", layer)
            y = linear(norm(x, "blocks/mlp_norm", layer), "blocks/mlp/up", layer)
            y = 0.5 * y * (1 + np.tanh(np.sqrt(2 / np.pi) * (y + 0.044715 * y**3)))
            x = x + linear(y, "blocks/mlp/down", layer)
        return norm(x, "norm") @ p["embedding/embedding"].T


@pytest.fixture(scope="module")
def case() -> Case:
    return Case()


def test_logits_are_those_of_sums_over_all_pairs(case: Case) -> None:
    wanted = case.written_out(np.ones((B, T)))
    np.testing.assert_allclose(case.logits, wanted, atol=5e-5 * np.abs(wanted).max())


def test_packed_documents_stay_apart(case: Case) -> None:
    wanted = case.written_out(SEGMENTS)
    np.testing.assert_allclose(case.packed, wanted, atol=5e-5 * np.abs(wanted).max())


def test_a_cache_goes_on_for_rows_of_different_lengths(case: Case) -> None:
    wanted = case.written_out(np.ones((B, T)))[np.arange(B), [12, 7]]
    np.testing.assert_allclose(case.after_pieces, wanted, atol=5e-5 * np.abs(wanted).max())
    np.testing.assert_array_equal(case.length, [13, 8])


def test_the_long_convolution_never_looks_ahead_to_the_bit() -> None:
    time, draw = 67, np.random.default_rng(2)  # blocks of 8, 16, ..., 128
    x, h = draw.normal(size=(B, time, D)), draw.normal(size=(time, D))
    convolve = jax.jit(long_convolution)
    found = np.asarray(convolve(x, h))
    wanted = np.stack([[np.convolve(row[:, d], h[:, d])[:time] for d in range(D)] for row in x]).swapaxes(1, 2)
    np.testing.assert_allclose(found, wanted, atol=1e-5 * np.abs(wanted).max())
    changed = x.copy()
    changed[:, 37:] += 1
    np.testing.assert_array_equal(convolve(changed, h)[:, :37], found[:, :37])


def test_an_even_number_of_features_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"hyena.filter_features = 4 must be odd"):
        hyena(filter_features=4)
