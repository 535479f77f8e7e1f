"""The two-sided encoder against torch.nn.LSTM and torch.nn.GRU, row by row without padding."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lmlab.contracts import BidirectionalLM, PooledEncoder
from lmlab.errors import ConfigError
from lmlab.models.bilstm import BiLSTM
from lmlab.nn.functional import ModelDef, Params

V, T, B, D, L = 13, 7, 3, 10, 2
SEGMENTS = np.array([[1, 1, 1, 1, 1, 1, 1], [1, 1, 1, 2, 2, 0, 0], [1, 0, 0, 0, 0, 0, 0]])
TOKENS = np.random.default_rng(3).integers(0, V, (B, T))


def made(**given: Any) -> tuple[ModelDef[BiLSTM], Params]:
    settings = {"width": D, "layers": L, "init_scale": 0.6, **given}
    model = ModelDef.of(lambda rngs: BiLSTM(V, jnp.float32, rngs, **settings))

    @jax.jit
    def parameters(key: jax.Array) -> Params:
        return {path: x + 0.1 * jnp.cos(jnp.arange(x.size)).reshape(x.shape) for path, x in model.init(key).items()}

    return model, parameters(jax.random.key(0))


def documents() -> list[tuple[int, slice]]:
    """The row and the place of every document."""
    return [
        (row, slice(int(where[0]), int(where[-1]) + 1))
        for row in range(B)
        for segment in range(1, SEGMENTS[row].max() + 1)
        for where in [np.flatnonzero(SEGMENTS[row] == segment)]
    ]


@pytest.mark.parametrize("cell", ["elman", "lstm", "gru"])
def test_each_document_has_the_states_and_gradients_of_pytorch(cell: str) -> None:
    torch = pytest.importorskip("torch")
    model, params = made(cell=cell)
    weights = np.random.default_rng(4).normal(size=(B, T, D)) * (SEGMENTS > 0)[..., None]

    @jax.jit
    def ours(params: Params) -> Any:
        def value(params: Params) -> tuple[jax.Array, jax.Array]:
            states = model.bind(params).encode(jnp.asarray(TOKENS), segment_ids=jnp.asarray(SEGMENTS))
            return (states * weights).sum(), states

        return jax.value_and_grad(value, has_aux=True)(params)

    (_, states), gradient = ours(params)
    made_of = {"elman": torch.nn.RNN, "lstm": torch.nn.LSTM, "gru": torch.nn.GRU}[cell]
    layers = made_of(D, D // 2, L, batch_first=True, bidirectional=True).double()
    embedding = torch.nn.Embedding(V, D).double()
    pairs = [("embedding/embedding", None, embedding.weight)]
    for layer in range(L):
        for way, end in (("forward", ""), ("backward", "_reverse")):
            for path, name in (
                ("input/kernel", "weight_ih"),
                ("recurrent/kernel", "weight_hh"),
                ("input/bias", "bias_ih"),
            ):
                pairs.append((f"blocks/{way}/{path}", layer, getattr(layers, f"{name}_l{layer}{end}")))
            getattr(layers, f"bias_hh_l{layer}{end}").data.zero_()
            if cell == "gru":
                bias = torch.tensor(np.asarray(params[f"blocks/{way}/recurrent/bias"][layer], np.float64))
                getattr(layers, f"bias_hh_l{layer}{end}").data[D:] = bias

    def as_torch(values: Any, path: str, layer: int | None) -> np.ndarray:
        value = np.asarray(values[path] if layer is None else values[path][layer], np.float64)
        return value.T.copy() if path.endswith("kernel") else value

    for path, layer, weight in pairs:
        weight.data.copy_(torch.tensor(as_torch(params, path, layer)))
    total = 0
    for row, place in documents():
        theirs = layers(embedding(torch.tensor(TOKENS[row, place])[None]))[0][0]
        np.testing.assert_allclose(states[row, place], theirs.detach(), atol=1e-6, err_msg=f"{row} {place}")
        total = total + (theirs * torch.tensor(weights[row, place])).sum()
    total.backward()
    for path, layer, weight in pairs:
        np.testing.assert_allclose(as_torch(gradient, path, layer), weight.grad, atol=3e-5, err_msg=f"{path} {layer}")


@pytest.mark.parametrize("pooling", ["max", "mean"])
def test_pooling_is_over_the_tokens_that_are_there(pooling: str) -> None:
    model, params = made(pooling=pooling)
    states = np.random.default_rng(5).normal(size=(B + 1, T, D)) - 3  # all below zero: padding must not win a maximum
    there = np.concatenate([SEGMENTS, np.zeros((1, T), int)])
    bound = model.bind(params)
    found = bound.pool(jnp.asarray(states, jnp.float32), segment_ids=jnp.asarray(there))
    wanted = [getattr(row[ids > 0], pooling)(0) for row, ids in zip(states[:B], SEGMENTS, strict=True)]
    np.testing.assert_allclose(found, [*wanted, np.zeros(D)], atol=1e-6)
    whole = bound.pool(jnp.asarray(states, jnp.float32))
    np.testing.assert_allclose(whole, getattr(states, pooling)(1), atol=1e-6)


def test_it_has_its_capabilities_and_wants_an_even_width() -> None:
    model, params = made()
    assert isinstance(model.bind(params), BidirectionalLM) and isinstance(model.bind(params), PooledEncoder)
    with pytest.raises(ConfigError, match=r"bilstm\.width = 11 must be even"):
        made(width=11)
