"""Elman networks and GRUs, stacked, against torch.nn.RNN and torch.nn.GRU with the same weights."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lmlab.losses.autoregressive import Autoregressive
from lmlab.models.recurrent import GRU, Elman
from lmlab.nn.functional import ModelDef

V, T, B, D, L = 13, 7, 3, 5, 2
GATES = {Elman: 1, GRU: 3}


def batch() -> dict[str, jax.Array]:
    tokens = jax.random.randint(jax.random.key(1), (B, T), 0, V)
    return {"tokens": tokens, "targets": jnp.roll(tokens, -1, 1), "weights": jnp.ones((B, T)).at[1, 4:].set(0)}


def loss_and_gradient(cell: Any, **given: Any) -> tuple[dict[str, np.ndarray], float, dict[str, np.ndarray]]:
    """Parameters away from zero, and the loss and its gradient there."""
    model = ModelDef.of(lambda rngs: cell(V, jnp.float32, rngs, width=D, layers=L, init_scale=0.6, **given))

    @jax.jit
    def run(key: jax.Array) -> Any:
        params = {path: x + 0.1 * jnp.cos(jnp.arange(x.size)).reshape(x.shape) for path, x in model.init(key).items()}
        return params, *jax.value_and_grad(
            lambda params: Autoregressive()(model.bind(params), batch(), None, jnp.int32(0)).total
        )(params)

    return jax.device_get(run(jax.random.key(0)))


def as_torch(values: Any, path: str, layer: int | None) -> np.ndarray:
    """The array of a path, of one layer, as PyTorch lays it out."""
    value = np.asarray(values[path] if layer is None else values[path][layer], np.float64)
    return value.T.copy() if path.endswith("kernel") else value


@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("cell", [Elman, GRU])
def test_loss_and_gradients_are_those_of_pytorch(cell: Any, tied: bool) -> None:
    torch = pytest.importorskip("torch")
    params, loss, gradient = loss_and_gradient(cell, tie_embeddings=tied)
    embedding = torch.nn.Embedding(V, D).double()
    layers = {Elman: torch.nn.RNN, GRU: torch.nn.GRU}[cell](D, D, L, batch_first=True).double()
    head = torch.nn.Linear(D, V, bias=not tied).double()
    if tied:
        head.weight = embedding.weight
    pairs: list[tuple[str, int | None, Any, slice]] = [("embedding/embedding", None, embedding.weight, slice(None))]
    pairs += [] if tied else [(f"head/{n}", None, getattr(head, t), slice(None)) for n, t in
                              (("kernel", "weight"), ("bias", "bias"))]  # fmt: skip
    for layer in range(L):
        names = {"input/kernel": "weight_ih", "recurrent/kernel": "weight_hh", "input/bias": "bias_ih"}
        pairs += [(f"blocks/{n}", layer, getattr(layers, f"{t}_l{layer}"), slice(None)) for n, t in names.items()]
        if cell is GRU:  # the other two parts of this bias do what those of the input do
            pairs.append(("blocks/recurrent/bias", layer, getattr(layers, f"bias_hh_l{layer}"), slice(2 * D, None)))
    assert {path for path, *_ in pairs} == params.keys()

    with torch.no_grad():
        for layer in range(L):
            getattr(layers, f"bias_hh_l{layer}").zero_()
        for path, layer, weight, part in pairs:
            weight[part].copy_(torch.tensor(as_torch(params, path, layer)))
    given = {name: torch.tensor(np.asarray(value)).long() for name, value in batch().items()}
    logits = head(layers(embedding(given["tokens"]))[0])
    nats = torch.nn.functional.cross_entropy(logits.transpose(1, 2), given["targets"], reduction="none")
    theirs = (nats * given["weights"]).sum()
    theirs.backward()

    np.testing.assert_allclose(loss, theirs.detach(), rtol=1e-6)
    for path, layer, weight, part in pairs:
        name = f"{path} {layer}"
        np.testing.assert_allclose(as_torch(gradient, path, layer), weight.grad[part], atol=3e-5, err_msg=name)
