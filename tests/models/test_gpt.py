"""The GPT, against a forward pass written out in float64 NumPy, and against itself where two ways must agree."""

from __future__ import annotations

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lmlab.contracts import CausalLM
from lmlab.errors import ConfigError
from lmlab.losses.autoregressive import Autoregressive
from lmlab.models.gpt import GPT
from lmlab.nn.functional import ModelDef
from tests.later import later

V, T, B, D, H, L = 17, 11, 3, 12, 2, 3
VARIANTS: dict[str, dict[str, Any]] = {
    "gpt2": {},
    "rotary": {"positions": "rotary", "norm": "rms", "bias": False, "tie_embeddings": False, "activation": "silu"},
}


def gpt(**given: Any) -> ModelDef[GPT]:
    settings = {"width": D, "heads": H, "layers": L, "init_std": 0.3, **given}
    dtype = settings.pop("dtype", jnp.float32)
    return ModelDef.of(lambda rngs: GPT(V, T, dtype, rngs, **settings))


def tokens(rows: int = B, time: int = T) -> jax.Array:
    return jax.random.randint(jax.random.key(1), (rows, time), 0, V)


@pytest.fixture(params=list(VARIANTS))
def variant(request: pytest.FixtureRequest) -> dict[str, Any]:
    return VARIANTS[request.param]


@functools.cache
def _parameters(name: str) -> dict[str, jax.Array]:
    """Initial ones, moved so that no bias is zero and no scale is one."""

    @jax.jit
    def make(key: jax.Array) -> dict[str, jax.Array]:
        fresh = gpt(**VARIANTS[name]).init(key)
        return {path: x + 0.1 * jnp.cos(jnp.arange(x.size)).reshape(x.shape) for path, x in fresh.items()}

    return make(jax.random.key(0))


def parameters(model: ModelDef[GPT]) -> dict[str, jax.Array]:
    return _parameters("rotary" if "head/kernel" in model.shapes else "gpt2")


def reader(model: ModelDef[GPT]) -> Any:
    """`model.hidden`, compiled; once for each shape of tokens and each set of arguments."""
    return jax.jit(lambda tokens, **given: model.bind(parameters(model)).hidden(tokens, **given))


def written_out(params: dict[str, jax.Array], ids: np.ndarray, variant: dict[str, Any]) -> np.ndarray:
    """Logits of one row of ids, one head and one position at a time."""
    p = {path: np.asarray(value, np.float64) for path, value in params.items()}
    rotary, K = "positions" in variant, D // H

    def linear(x, name, layer):
        y = x @ p[f"blocks/{name}/kernel"][layer]
        return y if rotary else y + p[f"blocks/{name}/bias"][layer]

    def norm(x, name, layer=...):
        if rotary:
            return x / np.sqrt((x**2).mean(-1, keepdims=True) + 1e-6) * p[f"{name}/scale"][layer]
        x = x - x.mean(-1, keepdims=True)
        return x / np.sqrt((x**2).mean(-1, keepdims=True) + 1e-5) * p[f"{name}/scale"][layer] + p[f"{name}/bias"][layer]

    def act(x):
        if rotary:
            return x / (1 + np.exp(-x))
        return 0.5 * x * (1 + np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3)))

    def turn(x, at):
        angle = at * 10_000.0 ** (-np.arange(K // 2) * 2 / K)
        z = (x[: K // 2] + 1j * x[K // 2 :]) * np.exp(1j * angle)
        return np.concatenate([z.real, z.imag])

    x = p["embedding/embedding"][ids]
    if not rotary:
        x = x + p["positions/embedding"][: len(ids)]
    for layer in range(L):
        qkv = linear(norm(x, "blocks/attention_norm", layer), "attention/qkv", layer).reshape(len(ids), H, 3, K)
        mixed = np.zeros((len(ids), H, K))
        for t in range(len(ids)):
            for h in range(H):
                q, k, v = qkv[t, h, 0], qkv[: t + 1, h, 1], qkv[: t + 1, h, 2]
                if rotary:
                    q, k = turn(q, t), np.stack([turn(k[s], s) for s in range(t + 1)])
                shares = np.exp(k @ q / np.sqrt(K))
                mixed[t, h] = shares / shares.sum() @ v
        x = x + linear(mixed.reshape(len(ids), D), "attention/out", layer)
        x = x + linear(act(linear(norm(x, "blocks/mlp_norm", layer), "mlp/up", layer)), "mlp/down", layer)
    return norm(x, "norm") @ (p["head/kernel"] if rotary else p["embedding/embedding"].T)


def test_logits_are_those_written_out_in_numpy(variant) -> None:
    model = gpt(**variant)
    params = parameters(model)
    got = jax.jit(lambda tokens: model.bind(params).logits(tokens))(tokens())
    wanted = np.stack([written_out(params, row, variant) for row in np.asarray(tokens())])
    np.testing.assert_allclose(got, wanted, atol=2e-4 * np.abs(wanted).max())


def test_it_is_a_causal_lm() -> None:
    assert isinstance(gpt().bind(parameters(gpt())), CausalLM)


def test_it_never_looks_ahead(variant) -> None:
    model = gpt(**variant)
    read = reader(model)
    changed = tokens().at[:, 7:].add(1) % V
    np.testing.assert_array_equal(read(tokens())[0][:, :7], read(changed)[0][:, :7])


def batch() -> dict[str, jax.Array]:
    weights = jnp.ones((B, T)).at[1, 4:].set(0)
    return {"tokens": tokens(), "targets": jnp.roll(tokens(), -1, 1), "weights": weights}


def loss_and_gradient(model: ModelDef[GPT], batch: dict[str, jax.Array], keys: jax.Array | None = None) -> Any:
    def total(params: dict[str, jax.Array]) -> jax.Array:
        return Autoregressive()(model.bind(params), batch, keys, jnp.int32(0)).total

    return jax.jit(jax.value_and_grad(total))(parameters(model))


def assert_same(one: Any, other: Any) -> None:
    assert jax.tree.structure(one) == jax.tree.structure(other)
    for a, b in zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True):
        np.testing.assert_allclose(a, b, atol=2e-5 * float(jnp.abs(b).max()) + 1e-6)


@pytest.mark.parametrize("how", [{"scan": False}, *later([{"remat": "none"}, {"remat": "full"}])])
def test_unrolled_is_scanned_and_remat_is_none(variant, how) -> None:
    plain, other = gpt(**variant), gpt(**variant, **how)
    assert plain.shapes == other.shapes
    assert_same(loss_and_gradient(other, batch()), loss_and_gradient(plain, batch()))


def test_each_layer_drops_the_same_scanned_and_unrolled() -> None:
    keys = jax.random.split(jax.random.key(4), B)
    scanned, unrolled = (reader(gpt(dropout=0.2, scan=scan))(tokens(), keys=keys)[0] for scan in (True, False))
    np.testing.assert_allclose(scanned, unrolled, atol=1e-4)


def test_reading_with_a_cache_is_reading_at_once(variant) -> None:
    model = gpt(**variant)
    read = reader(model)
    states, cache = [], model.bind(parameters(model)).init_cache(B, T)
    for start, end in [(0, 5), (5, 6), (6, T)]:
        piece, cache = read(tokens()[:, start:end], cache=cache)
        states.append(piece)
    np.testing.assert_allclose(jnp.concatenate(states, 1), read(tokens())[0], atol=1e-4)
    np.testing.assert_array_equal(cache.length, [T] * B)


def test_rows_of_different_lengths_share_a_cache(variant) -> None:
    model = gpt(**variant)
    read = reader(model)
    ids, lengths = np.asarray(tokens()), np.array([5, 1, 3])
    present = (np.arange(5) < lengths[:, None]).astype(np.int32)
    cache = model.bind(parameters(model)).init_cache(B, T)
    _, cache = read(np.where(present, ids[:, :5], 16), segment_ids=present, cache=cache)
    np.testing.assert_array_equal(cache.length, lengths)
    wanted = read(tokens())[0]
    for t in range(4):  # each row goes on from its own length
        states, cache = read(ids[np.arange(B), lengths + t][:, None], cache=cache)
        np.testing.assert_allclose(states[:, 0], wanted[np.arange(B), lengths + t], atol=1e-4)


def test_packed_documents_have_the_loss_and_gradient_that_they_have_apart(variant) -> None:
    model = gpt(**variant)
    cuts = [(0, 4), (4, 9)]  # two documents, then padding
    row = tokens(1)
    packed = {
        "tokens": row,
        "targets": jnp.roll(row, -1, 1),
        "weights": jnp.zeros((1, T)),
        "segment_ids": jnp.zeros((1, T), jnp.int32),
        "positions": jnp.zeros((1, T), jnp.int32),
    }
    apart = {
        "tokens": jnp.zeros((2, 5), jnp.int32),
        "targets": jnp.zeros((2, 5), jnp.int32),
        "weights": jnp.zeros((2, 5)),
    }
    for number, (start, end) in enumerate(cuts):
        packed["weights"] = packed["weights"].at[0, start : end - 1].set(1)
        packed["segment_ids"] = packed["segment_ids"].at[0, start:end].set(number + 1)
        packed["positions"] = packed["positions"].at[0, start:end].set(jnp.arange(end - start))
        apart["tokens"] = apart["tokens"].at[number, : end - start].set(row[0, start:end])
        apart["targets"] = apart["targets"].at[number, : end - start - 1].set(row[0, start + 1 : end])
        apart["weights"] = apart["weights"].at[number, : end - start - 1].set(1)
    assert_same(loss_and_gradient(model, packed), loss_and_gradient(model, apart))


def test_dropout_of_a_row_does_not_depend_on_its_batch() -> None:
    model = gpt(dropout=0.3)
    read, keys = reader(model), jax.random.split(jax.random.key(5), B)
    whole = read(tokens(), keys=keys)[0]
    parts = [read(tokens()[rows], keys=keys[rows])[0] for rows in (slice(0, 1), slice(1, B))]
    np.testing.assert_allclose(whole, jnp.concatenate(parts), atol=1e-5)
    assert not np.allclose(whole, read(tokens())[0], atol=1e-2)


def test_a_traced_dropout_rate_gives_the_loss_of_the_number() -> None:
    params, keys = parameters(gpt()), jax.random.split(jax.random.key(6), B)

    def loss(rate: Any) -> jax.Array:
        return Autoregressive()(gpt(dropout=rate).bind(params), batch(), keys, jnp.int32(0)).total

    traced = jax.jit(jax.vmap(loss))(jnp.array([0.0, 0.3]))
    np.testing.assert_allclose(traced, [jax.jit(lambda rate=rate: loss(rate))() for rate in (0.0, 0.3)], rtol=1e-5)


def test_bfloat16_computes_in_bfloat16_and_keeps_parameters_and_logits_in_float32() -> None:
    model = gpt(dtype=jnp.bfloat16)
    assert {shape.dtype for shape in model.shapes.values()} == {jnp.dtype("float32")}
    bound = model.bind(parameters(model))
    states, _ = reader(model)(tokens())
    assert states.dtype == jnp.bfloat16
    assert bound.project(states).dtype == jnp.float32
    assert bound.init_cache(B, T).k.dtype == jnp.bfloat16
    exact = reader(gpt())(tokens())[0]
    np.testing.assert_allclose(states.astype(jnp.float32), exact, atol=0.1 * float(jnp.abs(exact).max()))


def test_initial_weights_are_those_of_gpt2() -> None:
    wide = {"width": 96, "init_std": 0.02}
    params = jax.jit(gpt(**wide).init)(jax.random.key(0))
    for path, value in params.items():
        std = {"kernel": 0.02, "embedding": 0.02, "position": 0.02, "bias": 0, "scale": 0}[gpt(**wide).roles[path]]
        if path.endswith(("out/kernel", "down/kernel")):
            std /= np.sqrt(2 * L)
        assert value.std() == pytest.approx(std, rel=0.1), path
        assert value.mean() == pytest.approx(1 if path.endswith("scale") else 0, abs=0.003), path


def test_roles_and_paths_are_the_agreed_ones() -> None:
    roles = gpt(tie_embeddings=False).roles
    assert roles["blocks/attention/qkv/kernel"] == roles["head/kernel"] == "kernel"
    assert roles["embedding/embedding"] == "embedding"
    assert roles["positions/embedding"] == "position"
    assert roles["blocks/mlp_norm/scale"] == "scale"
    assert "head/kernel" not in gpt().roles


def test_more_tokens_than_learned_positions_are_refused() -> None:
    model = gpt()
    with pytest.raises(ConfigError, match="at most seq_len = 11 tokens, not 12"):
        model.bind(parameters(model)).init_cache(1, T + 1)
    rotary = gpt(**VARIANTS["rotary"])
    rotary.bind(parameters(rotary)).init_cache(1, T + 1)


def test_heads_that_do_not_divide_the_width_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"gpt.width = 12 does not divide into gpt.heads = 5"):
        gpt(heads=5)
