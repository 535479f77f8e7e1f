"""Mamba, against a recurrence written out in float64 NumPy and against transformers with the same weights."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lmlab.models.mamba import Mamba
from lmlab.nn.functional import ModelDef
from lmlab.nn.selective_scan import selective_scan

V, T, B, D, L, N, R, TAPS = 17, 11, 2, 6, 3, 5, 2, 3


def mamba(**given: Any) -> ModelDef[Mamba]:
    sizes = {"width": D, "layers": L, "state": N, "rank": R, "taps": TAPS, "chunk": 4, "init_std": 0.5, **given}
    return ModelDef.of(lambda rngs: Mamba(V, jnp.float32, rngs, **sizes))


@pytest.fixture(scope="module")
def params() -> dict[str, jax.Array]:
    """Initial ones, moved so that no bias is zero and no scale is one."""

    def make(key: jax.Array) -> dict[str, jax.Array]:
        fresh = mamba().init(key)
        return {path: x + 0.1 * jnp.cos(jnp.arange(x.size)).reshape(x.shape) for path, x in fresh.items()}

    return jax.jit(make)(jax.random.key(0))


@pytest.fixture(scope="module")
def tokens() -> np.ndarray:
    return np.random.default_rng(1).integers(0, V, (B, T))


@pytest.fixture(scope="module")
def logits(params: dict[str, jax.Array], tokens: np.ndarray) -> np.ndarray:
    return np.asarray(jax.jit(lambda ids: mamba().bind(params).logits(ids))(jnp.asarray(tokens)))


def written_out(params: dict[str, jax.Array], ids: np.ndarray) -> np.ndarray:
    """Logits of one row of ids, one token at a time."""
    p = {path: np.asarray(value, np.float64) for path, value in params.items()}

    def norm(x, scale):
        return x / np.sqrt((x**2).mean() + 1e-5) * scale

    def silu(x):
        return x / (1 + np.exp(-x))

    table = p["embedding/embedding"]
    blocks = {path.removeprefix("blocks/"): value for path, value in p.items() if path.startswith("blocks/")}
    h, inputs, out = np.zeros((L, 2 * D, N)), np.zeros((L, TAPS, 2 * D)), []
    for token in ids:
        x = table[token]
        for layer in range(L):
            q = {path.removeprefix("mixer/"): value[layer] for path, value in blocks.items()}
            u, z = np.split(norm(x, q["norm/scale"]) @ q["input/kernel"], 2)
            inputs[layer] = np.vstack([inputs[layer, 1:], u])
            u = silu((inputs[layer] * q["conv/kernel"]).sum(0) + q["conv/bias"])
            low, b, c = np.split(u @ q["ssm/select/kernel"], [R, R + N])
            delta = np.log1p(np.exp(low @ q["ssm/step/kernel"] + q["ssm/step_bias"]))
            decay = np.exp(-np.exp(q["ssm/log_decay"]) * delta[:, None])
            h[layer] = decay * h[layer] + (delta * u)[:, None] * b
            x = x + ((h[layer] @ c + q["ssm/skip"] * u) * silu(z)) @ q["out/kernel"]
        out.append(norm(x, p["norm/scale"]) @ table.T)
    return np.stack(out)


def test_logits_are_those_written_out_in_numpy(params, tokens, logits) -> None:
    np.testing.assert_allclose(logits, np.stack([written_out(params, row) for row in tokens]), atol=1e-4)


def test_logits_are_those_of_transformers(params, tokens, logits) -> None:
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    config = transformers.MambaConfig(
        vocab_size=V, hidden_size=D, state_size=N, num_hidden_layers=L, conv_kernel=TAPS, time_step_rank=R,
        layer_norm_epsilon=1e-5, pad_token_id=0, bos_token_id=0, eos_token_id=0,
    )  # fmt: skip
    other = transformers.MambaForCausalLM(config).eval()
    names = {
        "norm.weight": "norm/scale", "mixer.in_proj.weight": "input/kernel", "mixer.conv1d.bias": "conv/bias",
        "mixer.conv1d.weight": "conv/kernel", "mixer.x_proj.weight": "ssm/select/kernel",
        "mixer.dt_proj.weight": "ssm/step/kernel", "mixer.dt_proj.bias": "ssm/step_bias",
        "mixer.A_log": "ssm/log_decay", "mixer.D": "ssm/skip", "mixer.out_proj.weight": "out/kernel",
    }  # fmt: skip
    weights = {
        "backbone.embeddings.weight": params["embedding/embedding"],
        "lm_head.weight": params["embedding/embedding"],
    }
    weights["backbone.norm_f.weight"] = params["norm/scale"]
    for layer in range(L):
        for theirs, ours in names.items():
            half = "blocks" if ours.startswith("norm") else "blocks/mixer"
            value = params[f"{half}/{ours}"][layer]
            value = value.T[:, None] if "conv1d.weight" in theirs else value.T if "kernel" in ours else value
            weights[f"backbone.layers.{layer}.{theirs}"] = value
    other.load_state_dict({name: torch.tensor(np.array(value)) for name, value in weights.items()})
    with torch.no_grad():
        wanted = other(torch.tensor(tokens)).logits.numpy()
    np.testing.assert_allclose(logits, wanted, atol=1e-4)


def test_the_scan_in_chunks_has_the_outputs_and_gradients_of_the_recurrence() -> None:
    """With documents that start inside of chunks, and steps of length zero at the end."""
    draw, E = np.random.default_rng(2), 3
    u, b, c = (draw.normal(size=(B, T, n)) for n in (E, N, N))
    delta, a, h = draw.uniform(0, 1, (B, T, E)), -draw.uniform(0.1, 2, (E, N)), draw.normal(size=(B, E, N))
    delta[1, 8:] = 0
    starts = np.zeros((B, T), bool)
    starts[0, 5] = starts[1, 3] = True

    def step_by_step(u: Any, delta: Any, a: Any, b: Any, c: Any, h: Any, numbers: Any) -> tuple[Any, Any]:
        y = []
        for t in range(T):
            h = numbers.where(starts[:, t, None, None], 0, h) * numbers.exp(delta[:, t, :, None] * a)
            h = h + (delta[:, t] * u[:, t])[..., None] * b[:, t, None]
            y.append(numbers.einsum("ben,bn->be", h, c[:, t]))
        return numbers.stack(y, 1), h

    given = tuple(jnp.asarray(x, jnp.float32) for x in (u, delta, a, b, c, h))
    mixed = [jnp.asarray(draw.normal(size=shape), jnp.float32) for shape in ((B, T, E), (B, E, N))]

    def sums(function: Any) -> Any:
        def total(given: Any) -> Any:
            found = function(*given)
            return sum((x * w).sum() for x, w in zip(found, mixed, strict=True)), found

        return jax.jit(jax.value_and_grad(total, has_aux=True))(given)

    (_, found), slopes = sums(lambda *x: selective_scan(*x, jnp.asarray(starts), chunk=4))
    for one, other in zip(found, step_by_step(u, delta, a, b, c, h, np), strict=True):
        np.testing.assert_allclose(one, other, atol=1e-5)
    _, wanted = sums(lambda *x: step_by_step(*x, jnp))  # by automatic differentiation of the loop
    for one, other in zip(slopes, wanted, strict=True):
        np.testing.assert_allclose(one, other, atol=1e-4)


def test_rows_of_different_lengths_share_a_cache(params, tokens, logits) -> None:
    model, lengths = mamba(), np.array([4, 1])
    read = jax.jit(lambda ids, **given: model.bind(params).hidden(ids, **given))
    there = (np.arange(4) < lengths[:, None]).astype(np.int32)
    bound = model.bind(params)
    _, cache = read(np.where(there, tokens[:, :4], 16), segment_ids=there, cache=bound.init_cache(B, T))
    np.testing.assert_array_equal(cache.length, lengths)
    states, cache = read(tokens[np.arange(B), lengths][:, None], cache=cache)
    np.testing.assert_allclose(bound.project(states[:, 0]), logits[np.arange(B), lengths], atol=1e-4)
    assert {leaf.shape for leaf in jax.tree.leaves(cache.layers)} == {(L, B, TAPS - 1, 2 * D), (L, B, 2 * D, N)}


def test_initial_values_are_those_of_the_authors() -> None:
    params = jax.jit(mamba(width=96, rank=6, delta_min=0.001, delta_max=0.1).init)(jax.random.key(3))
    delta = np.log1p(np.exp(np.asarray(params["blocks/mixer/ssm/step_bias"], np.float64)))
    assert delta.min() >= 0.001 * 0.999 and delta.max() <= 0.1 * 1.001
    assert np.log(delta).mean() == pytest.approx((np.log(0.001) + np.log(0.1)) / 2, abs=0.15)
    np.testing.assert_allclose(np.exp(params["blocks/mixer/ssm/log_decay"])[1, 7], np.arange(1, N + 1), rtol=1e-5)
    assert (params["blocks/mixer/ssm/skip"] == 1).all()
    for path, bound in [("input", 96**-0.5), ("ssm/step", 6**-0.5), ("out", (192 * L) ** -0.5)]:
        assert np.abs(params[f"blocks/mixer/{path}/kernel"]).max() == pytest.approx(bound, rel=0.02), path
