"""The options of the transformer's block, against attention written out in float64 NumPy, one query at a time."""

from __future__ import annotations

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.special

from lmlab.models.bert import BERT
from lmlab.models.gpt import GPT
from lmlab.nn.functional import ModelDef
from lmlab.nn.positions import alibi_slopes, relative_buckets, sinusoids
from lmlab.testing.of_models import moved

V, T, B, D, H, L, W = 17, 11, 2, 24, 6, 2, 4
SIZES: dict[str, Any] = {"width": D, "heads": H, "layers": L, "init_std": 0.3}
PREFIX = np.arange(T) < np.array([[5], [0]])

OPTIONS: dict[str, dict[str, Any]] = {
    "alibi, local": {"positions": "alibi", "window": W},
    "sinusoidal, grouped, swiglu": {"positions": "sinusoidal", "kv_heads": 2, "activation": "swiglu"},
    "relative, one head of keys, reglu": {"positions": "relative", "kv_heads": 1, "activation": "reglu"},
    "rotary, qk-norm, local, grouped": {"positions": "rotary", "qk_norm": True, "window": W, "kv_heads": 3},
    "none, parallel, geglu": {"positions": "none", "arrangement": "parallel", "activation": "geglu"},
    "learned, post-norm, rms": {"positions": "learned", "arrangement": "post_norm", "norm": "rms"},
}


class WrittenOut:
    """A decoder or an encoder in float64, one query of one head at a time."""

    def __init__(self, params: dict[str, jax.Array], options: dict[str, Any], *, causal: bool) -> None:
        self.p = {path: np.asarray(value, np.float64) for path, value in params.items()}
        self.options, self.causal = options, causal
        self.groups = options.get("kv_heads", H)
        self.looks: list[np.ndarray] = []
        """What each head of each layer looked at, (H, T, T), in the order of the rows and layers that were read."""

    def states(self, ids: np.ndarray, prefix: np.ndarray) -> np.ndarray:
        x = self.p["embedding/embedding"][ids]
        if not self.causal:
            x = x + self.p["type_embedding/embedding"][0]
        if self.options["positions"] == "learned":
            x = x + self.p["positions/embedding"][: len(ids)]
        if self.options["positions"] == "sinusoidal":
            angle = np.arange(len(ids))[:, None] / 10_000 ** (np.arange(D) // 2 * 2 / D)
            x = x + np.where(np.arange(D) % 2, np.cos(angle), np.sin(angle))
        x = x if self.causal else self.norm(x, "input_norm")
        for layer in range(L):
            x = self.block(x, layer, prefix)
        return x if self.options.get("arrangement") == "post_norm" else self.norm(x, "norm")

    def block(self, x: np.ndarray, layer: int, prefix: np.ndarray) -> np.ndarray:
        def norm(x: np.ndarray, name: str) -> np.ndarray:
            return self.norm(x, f"blocks/{name}", layer)

        match self.options.get("arrangement", "pre_norm"):
            case "parallel":
                y = norm(x, "attention_norm")
                return x + self.attention(y, layer, prefix) + self.mlp(y, layer)
            case "post_norm":
                x = norm(x + self.attention(x, layer, prefix), "attention_norm")
                return norm(x + self.mlp(x, layer), "mlp_norm")
        x = x + self.attention(norm(x, "attention_norm"), layer, prefix)
        return x + self.mlp(norm(x, "mlp_norm"), layer)

    def attention(self, x: np.ndarray, layer: int, prefix: np.ndarray) -> np.ndarray:
        q, k, v = self.heads(x, layer)
        mixed, looks = np.zeros((len(x), H, D // H)), np.zeros((H, len(x), len(x)))
        for t in range(len(x)):
            seen = [s for s in range(len(x)) if self.sees(t, s) or prefix[s]]
            for h in range(H):
                g = h * self.groups // H
                scores = [self.turned(q[t, h], t) @ self.turned(k[s, g], s) / math.sqrt(D // H) for s in seen]
                weights = scipy.special.softmax(np.array(scores) + [self.bias(h, s - t) for s in seen])
                mixed[t, h], looks[h, t, seen] = weights @ v[seen, g], weights
        self.looks.append(looks)
        return self.linear(mixed.reshape(len(x), D), "attention/out", layer)

    def heads(self, x: np.ndarray, layer: int) -> list[np.ndarray]:
        if self.groups == H:
            qkv = self.linear(x, "attention/qkv", layer).reshape(len(x), H, 3, -1)
            parts = [qkv[:, :, i] for i in range(3)]
        else:
            parts = [self.linear(x, f"attention/{name}", layer).reshape(len(x), -1, D // H) for name in "qkv"]
        if self.options.get("qk_norm"):
            for i, name in enumerate(("q_norm", "k_norm")):
                scale = self.p[f"blocks/attention/{name}/scale"][layer]
                parts[i] = parts[i] / np.sqrt((parts[i] ** 2).mean(-1, keepdims=True) + 1e-6) * scale
        return parts

    def sees(self, t: int, s: int) -> bool:
        near = abs(t - s) < self.options.get("window", T)
        return near and (s <= t or not self.causal)

    def bias(self, head: int, distance: int) -> float:
        if self.options["positions"] == "alibi":
            slopes = [2**-2, 2**-4, 2**-6, 2**-8, 2**-1, 2**-3]  # four heads' and the odd ones of eight heads'
            return -slopes[head] * abs(distance)
        if self.options["positions"] == "relative":
            return float(self.p["positions/bias"][bucket(distance, causal=self.causal), head])
        return 0.0

    def turned(self, x: np.ndarray, at: int) -> np.ndarray:
        if self.options["positions"] != "rotary":
            return x
        half = len(x) // 2
        z = (x[:half] + 1j * x[half:]) * np.exp(1j * at * 10_000.0 ** (-np.arange(half) / half))
        return np.concatenate([z.real, z.imag])

    def mlp(self, x: np.ndarray, layer: int) -> np.ndarray:
        functions = {
            "silu": lambda x: x / (1 + np.exp(-x)),
            "relu": lambda x: np.maximum(x, 0),
            "gelu": lambda x: 0.5 * x * (1 + np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3))),
            "gelu_exact": lambda x: x * scipy.special.ndtr(x),
        }
        name = self.options.get("activation", "gelu" if self.causal else "gelu_exact")
        up = self.linear(x, "mlp/up", layer)
        gate = {"swiglu": "silu", "geglu": "gelu", "reglu": "relu"}.get(name)
        inner = functions[name](up) if gate is None else functions[gate](self.linear(x, "mlp/gate", layer)) * up
        return self.linear(inner, "mlp/down", layer)

    def linear(self, x: np.ndarray, name: str, layer: int) -> np.ndarray:
        return x @ self.p[f"blocks/{name}/kernel"][layer] + self.p[f"blocks/{name}/bias"][layer]

    def norm(self, x: np.ndarray, name: str, layer: Any = ...) -> np.ndarray:
        epsilon = 1e-5 if self.causal else 1e-12
        if self.options.get("norm") == "rms":
            epsilon = 1e-6 if self.causal else 1e-12
            return x / np.sqrt((x**2).mean(-1, keepdims=True) + epsilon) * self.p[f"{name}/scale"][layer]
        x = x - x.mean(-1, keepdims=True)
        y = x / np.sqrt((x**2).mean(-1, keepdims=True) + epsilon)
        return y * self.p[f"{name}/scale"][layer] + self.p[f"{name}/bias"][layer]


def bucket(distance: int, *, causal: bool, buckets: int = 32, most: int = 128) -> int:
    """T5's range of a distance."""
    if causal:
        first, far = 0, max(-distance, 0)
    else:
        buckets //= 2
        first, far = buckets * (distance > 0), abs(distance)
    exact = buckets // 2
    if far < exact:
        return first + far
    ratio = math.log(far / exact) / math.log(most / exact)
    return first + min(buckets - 1, exact + math.floor(ratio * (buckets - exact) + 1e-9))


def tokens() -> np.ndarray:
    return np.random.default_rng(1).integers(0, V, (B, T))


def assert_near(got: jax.Array, wanted: np.ndarray) -> None:
    np.testing.assert_allclose(got, wanted, atol=2e-4 * np.abs(wanted).max())


LONG = ("sinusoidal, grouped, swiglu", "none, parallel, geglu", "alibi, local", "relative, one head of keys, reglu")
"""What `pytest -m long` looks at."""


@pytest.mark.parametrize("name", [pytest.param(name, marks=[pytest.mark.long] * (name in LONG)) for name in OPTIONS])
def test_decoders(name: str) -> None:
    """Read at once, in pieces with a cache, and with a prefix that all see."""
    options = OPTIONS[name]
    model = ModelDef.of(lambda rngs: GPT(V, T, jnp.float32, rngs, **SIZES, **options))
    params = moved(model)

    @jax.jit
    def read(tokens: jax.Array) -> tuple[jax.Array, ...]:
        bound = model.bind(params)
        looks = [bound.attention_weights(tokens), bound.attention_weights(tokens, prefix=jnp.asarray(PREFIX))]
        cache, pieces = bound.init_cache(B, T), []
        for piece in jnp.split(tokens, [3, 4], axis=1):
            states, cache = bound.hidden(piece, cache=cache)
            pieces.append(states)
        prefixed = bound.hidden(tokens, prefix=jnp.asarray(PREFIX))[0]
        states, cache = bound.hidden(tokens[:, :6], cache=bound.init_cache(B, T), prefix=jnp.asarray(PREFIX)[:, :6])
        again = jnp.concatenate((states, bound.hidden(tokens[:, 6:], cache=cache)[0]), 1)
        return bound.hidden(tokens)[0], jnp.concatenate(pieces, 1), prefixed, again, jnp.concatenate(looks, 1)

    whole, pieces, prefixed, again, looks = read(jnp.asarray(tokens()))
    written = WrittenOut(params, options, causal=True)
    nothing = np.zeros(T, bool)
    wanted = np.stack([written.states(row, nothing) for row in tokens()])
    assert_near(whole, wanted)
    assert_near(pieces, wanted)
    prefixed_wanted = np.stack([written.states(row, prefix) for row, prefix in zip(tokens(), PREFIX, strict=True)])
    assert_near(prefixed, prefixed_wanted)
    assert_near(looks.swapaxes(0, 1).reshape(-1, H, T, T), np.stack(written.looks))
    if "window" not in options:  # what is read later sees a prefix only as far as its window reaches
        assert_near(again, prefixed_wanted)


@pytest.mark.parametrize("name", ["alibi, local", "relative, one head of keys, reglu", "none, parallel, geglu"])
def test_encoders(name: str) -> None:
    options = {key: value for key, value in OPTIONS[name].items() if key != "kv_heads"}
    model = ModelDef.of(lambda rngs: BERT(V, T, jnp.float32, rngs, **SIZES, **{"arrangement": "pre_norm", **options}))
    params = moved(model)
    got = jax.jit(lambda tokens: model.bind(params).encode(tokens))(tokens())
    written = WrittenOut(params, options, causal=False)
    assert_near(got, np.stack([written.states(row, np.zeros(T, bool)) for row in tokens()]))


def test_slopes_of_a_power_of_two_are_the_papers() -> None:
    np.testing.assert_allclose(alibi_slopes(8), [2.0**-i for i in range(1, 9)])
    assert alibi_slopes(12).shape == (12,)
    assert alibi_slopes(1) == [2.0**-8]


@pytest.mark.parametrize("causal", [True, False])
def test_relative_ranges(causal: bool) -> None:
    distances = np.arange(-150, 151)
    got = relative_buckets(jnp.asarray(distances), 32, 128, causal=causal)
    np.testing.assert_array_equal(got, [bucket(int(d), causal=causal) for d in distances])
    assert set(np.asarray(got).tolist()) == set(range(32)) - ({16} if not causal else set())


def test_sinusoids_of_an_odd_width_end_with_a_sine() -> None:
    got = sinusoids(jnp.array([[3]]), 5)
    np.testing.assert_allclose(got[0, 0, 4], np.sin(3 / 10_000 ** (4 / 5)), rtol=1e-5)
    assert got.shape == (1, 1, 5)
