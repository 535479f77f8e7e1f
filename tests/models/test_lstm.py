"""The LSTM, against torch.nn.LSTM with the same weights, and against itself where two ways must agree."""

from __future__ import annotations

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lmlab.contracts import CausalLM
from lmlab.losses.autoregressive import Autoregressive
from lmlab.models.lstm import LSTM
from lmlab.nn.functional import ModelDef

V, T, B, D, L = 13, 7, 3, 5, 2


def lstm(**given: Any) -> ModelDef[LSTM]:
    settings = {"width": D, "layers": L, "init_scale": 0.6, **given}
    dtype = settings.pop("dtype", jnp.float32)
    return ModelDef.of(lambda rngs: LSTM(V, dtype, rngs, **settings))


def tokens(rows: int = B, time: int = T) -> jax.Array:
    return jax.random.randint(jax.random.key(1), (rows, time), 0, V)


@functools.cache
def _parameters(tied: bool) -> dict[str, jax.Array]:
    @jax.jit
    def make(key: jax.Array) -> dict[str, jax.Array]:
        fresh = lstm(tie_embeddings=tied).init(key)
        return {path: x + 0.1 * jnp.cos(jnp.arange(x.size)).reshape(x.shape) for path, x in fresh.items()}

    with jax.ensure_compile_time_eval():  # it may be first called inside of a traced function
        return make(jax.random.key(0))


def parameters(model: ModelDef[LSTM]) -> dict[str, jax.Array]:
    return _parameters("head/kernel" not in model.shapes)


def reader(model: ModelDef[LSTM]) -> Any:
    """`model.hidden`, compiled; once for each shape of tokens and each set of arguments."""
    return jax.jit(lambda tokens, **given: model.bind(parameters(model)).hidden(tokens, **given))


def batch() -> dict[str, jax.Array]:
    weights = jnp.ones((B, T)).at[1, 4:].set(0)
    return {"tokens": tokens(), "targets": jnp.roll(tokens(), -1, 1), "weights": weights}


def loss_and_gradient(model: ModelDef[LSTM], batch: dict[str, jax.Array], keys: jax.Array | None = None) -> Any:
    def total(params: dict[str, jax.Array]) -> jax.Array:
        return Autoregressive()(model.bind(params), batch, keys, jnp.int32(0)).total

    return jax.jit(jax.value_and_grad(total))(parameters(model))


def test_loss_and_gradients_are_those_of_pytorch() -> None:
    torch = pytest.importorskip("torch")
    model = lstm()
    loss, gradient = loss_and_gradient(model, batch())
    params = {path: np.asarray(value, np.float64) for path, value in parameters(model).items()}

    embedding = torch.nn.Embedding(V, D).double()
    layers = torch.nn.LSTM(D, D, L, batch_first=True).double()
    head = torch.nn.Linear(D, V).double()
    pairs = [
        ("embedding/embedding", None, embedding.weight),
        ("head/kernel", None, head.weight),
        ("head/bias", None, head.bias),
    ]
    for layer in range(L):
        pairs.append(("blocks/input/kernel", layer, getattr(layers, f"weight_ih_l{layer}")))
        pairs.append(("blocks/recurrent/kernel", layer, getattr(layers, f"weight_hh_l{layer}")))
        pairs.append(("blocks/input/bias", layer, getattr(layers, f"bias_ih_l{layer}")))

    def as_torch(values: Any, path: str, layer: int | None) -> np.ndarray:
        value = np.asarray(values[path] if layer is None else values[path][layer])
        return value.T if path.endswith("kernel") else value

    with torch.no_grad():
        for path, layer, weight in pairs:
            weight.copy_(torch.tensor(as_torch(params, path, layer).copy()))
        for layer in range(L):
            getattr(layers, f"bias_hh_l{layer}").zero_()
    given = {name: torch.tensor(np.asarray(value)).long() for name, value in batch().items()}
    logits = head(layers(embedding(given["tokens"]))[0])
    nats = torch.nn.functional.cross_entropy(logits.transpose(1, 2), given["targets"], reduction="none")
    theirs = (nats * given["weights"]).sum()
    theirs.backward()

    np.testing.assert_allclose(loss, theirs.detach(), rtol=1e-6)
    for path, layer, weight in pairs:
        np.testing.assert_allclose(as_torch(gradient, path, layer), weight.grad, atol=3e-5, err_msg=f"{path} {layer}")


def test_it_is_a_causal_lm() -> None:
    assert isinstance(lstm().bind(parameters(lstm())), CausalLM)


def test_it_never_looks_ahead() -> None:
    read = reader(lstm())
    changed = tokens().at[:, 5:].add(1) % V
    np.testing.assert_array_equal(read(tokens())[0][:, :5], read(changed)[0][:, :5])


def assert_same(one: Any, other: Any) -> None:
    assert jax.tree.structure(one) == jax.tree.structure(other)
    for a, b in zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True):
        np.testing.assert_allclose(a, b, atol=2e-5 * float(jnp.abs(b).max()) + 1e-6)


@pytest.mark.parametrize("how", [{"scan": False}, {"remat": "dots"}, {"remat": "full"}])
def test_unrolled_is_scanned_and_remat_is_none(how: dict[str, Any]) -> None:
    keys = jax.random.split(jax.random.key(4), B)
    plain, other = lstm(dropout=0.2), lstm(dropout=0.2, **how)
    assert plain.shapes == other.shapes
    assert_same(loss_and_gradient(other, batch(), keys), loss_and_gradient(plain, batch(), keys))


@pytest.mark.parametrize("tied", [True, False])
def test_reading_with_a_cache_is_reading_at_once(tied: bool) -> None:
    model = lstm(tie_embeddings=tied)
    read, bound = reader(model), model.bind(parameters(model))
    states, cache = [], bound.init_cache(B, T)
    for start, end in [(0, 3), (3, 4), (4, T)]:
        piece, cache = read(tokens()[:, start:end], cache=cache)
        states.append(piece)
    np.testing.assert_allclose(bound.project(jnp.concatenate(states, 1)), bound.logits(tokens()), atol=1e-5)


def test_rows_of_different_lengths_share_a_cache() -> None:
    read = reader(lstm())
    ids, lengths = np.asarray(tokens()), np.array([5, 1, 0])
    present = (np.arange(5) < lengths[:, None]).astype(np.int32)
    _, cache = read(ids[:, :5], segment_ids=present, cache=lstm().bind(parameters(lstm())).init_cache(B, T))
    wanted = read(tokens())[0]
    for t in range(2):  # each row goes on from its own length
        states, cache = read(ids[np.arange(B), lengths + t][:, None], cache=cache)
        np.testing.assert_allclose(states[:, 0], wanted[np.arange(B), lengths + t], atol=1e-5)


def test_packed_documents_have_the_loss_and_gradient_that_they_have_apart() -> None:
    row = tokens(1)
    segment_ids = jnp.array([[1, 1, 1, 2, 2, 2, 0]])
    weights = jnp.array([[1.0, 1, 0, 1, 1, 0, 0]])
    packed = {"tokens": row, "targets": jnp.roll(row, -1, 1), "weights": weights, "segment_ids": segment_ids}
    pieces = {name: packed[name][:, :6].reshape(2, 3) for name in ("tokens", "targets", "weights")}
    assert_same(loss_and_gradient(lstm(), packed), loss_and_gradient(lstm(), pieces))


@pytest.mark.parametrize("more", [{}, {"locked_dropout": True, "embedding_dropout": 0.4}], ids=["plain", "awd"])
def test_dropout_of_a_row_does_not_depend_on_its_batch(more: dict[str, Any]) -> None:
    read, keys = reader(lstm(dropout=0.3, **more)), jax.random.split(jax.random.key(5), B)
    whole = read(tokens(), keys=keys)[0]
    parts = [read(tokens()[rows], keys=keys[rows])[0] for rows in (slice(0, 1), slice(1, B))]
    np.testing.assert_allclose(whole, jnp.concatenate(parts), atol=1e-6)
    assert not np.allclose(whole, read(tokens())[0], atol=1e-2)


def test_a_traced_dropout_rate_gives_the_loss_of_the_number() -> None:
    params, keys = parameters(lstm()), jax.random.split(jax.random.key(6), B)

    def loss(rate: Any) -> jax.Array:
        return Autoregressive()(lstm(dropout=rate).bind(params), batch(), keys, jnp.int32(0)).total

    traced = jax.jit(jax.vmap(loss))(jnp.array([0.0, 0.3]))
    np.testing.assert_allclose(traced, [jax.jit(lambda rate=rate: loss(rate))() for rate in (0.0, 0.3)], rtol=1e-5)


def test_bfloat16_keeps_parameters_states_and_logits_in_float32() -> None:
    model = lstm(dtype=jnp.bfloat16)
    assert {shape.dtype for shape in model.shapes.values()} == {jnp.dtype("float32")}
    bound = model.bind(parameters(model))
    states, cache = bound.hidden(tokens(), cache=bound.init_cache(B, T))
    assert (states.dtype, cache.c.dtype) == (jnp.bfloat16, jnp.float32)
    assert bound.project(states).dtype == jnp.float32
    exact = lstm().bind(parameters(model)).logits(tokens())
    np.testing.assert_allclose(bound.logits(tokens()), exact, atol=0.05 * float(jnp.abs(exact).max()))


def test_the_forget_gates_start_open() -> None:
    bias = jax.jit(lstm(forget_bias=1.5).init)(jax.random.key(0))["blocks/input/bias"]
    np.testing.assert_array_equal(bias, np.tile(np.repeat([0, 1.5, 0, 0], D), (L, 1)))
