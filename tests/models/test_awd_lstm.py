"""What AWD-LSTM adds to recurrent models: dropped recurrent weights, and charges on states."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lmlab.contracts import NoisyParameters
from lmlab.models.lstm import LSTM
from lmlab.models.recurrent import Elman
from lmlab.nn.auxiliary import collecting
from lmlab.nn.functional import ModelDef, parameters
from tests.drawn import drawn

V, T, B, D, L = 13, 7, 3, 5, 2
TOKENS = jax.random.randint(jax.random.key(1), (B, T), 0, V)
SEGMENTS = np.array([[1, 1, 1, 2, 2, 2, 2], [1, 1, 2, 3, 3, 0, 0], [0, 0, 0, 0, 0, 0, 0]])


def lstm(**given: Any) -> ModelDef[LSTM]:
    return ModelDef.of(lambda rngs: LSTM(V, jnp.float32, rngs, **{"width": D, "layers": L, "init_scale": 0.6, **given}))


def test_dropped_recurrent_weights_are_those_of_pytorch_with_the_same_mask() -> None:
    torch = pytest.importorskip("torch")
    rate, model = 0.4, lstm(weight_dropout=0.4)
    params = drawn(model)
    share = jax.random.normal(jax.random.key(2), (B, T, D))

    @jax.jit
    def ours(params: Any, key: Any) -> Any:
        def total(params: Any) -> Any:
            noisy = model.bind(params).with_noise(key)
            states, _ = noisy.hidden(TOKENS)
            return (states * share).sum(), (states, parameters(noisy)["blocks/recurrent/kernel"])

        return jax.grad(total, has_aux=True)(params)

    gradient, (states, noisy) = ours(params, jax.random.key(3))
    kernel = params["blocks/recurrent/kernel"]
    mask = np.asarray(noisy != 0)
    assert 0.2 < 1 - mask.mean() < 0.6 and not (mask[0] == mask[1]).all()

    layers = torch.nn.LSTM(D, D, L, batch_first=True).double()
    raw = [torch.tensor(np.array(kernel[layer], np.float64), requires_grad=True) for layer in range(L)]
    given: dict[str, Any] = {}
    for layer in range(L):
        # As torch.nn.functional.dropout, with this mask: what is kept is divided by the share that is.
        given[f"weight_hh_l{layer}"] = (raw[layer] * torch.tensor(mask[layer]) / (1 - rate)).T
        given[f"weight_ih_l{layer}"] = torch.tensor(np.array(params["blocks/input/kernel"][layer], np.float64).T.copy())
        given[f"bias_ih_l{layer}"] = torch.tensor(np.array(params["blocks/input/bias"][layer], np.float64))
        given[f"bias_hh_l{layer}"] = torch.zeros(4 * D, dtype=torch.float64)
    inputs = torch.tensor(np.array(params["embedding/embedding"], np.float64))[torch.tensor(np.array(TOKENS)).long()]
    theirs = torch.func.functional_call(layers, given, (inputs,))[0]
    (theirs * torch.tensor(np.array(share))).sum().backward()
    np.testing.assert_allclose(states, theirs.detach(), atol=1e-5)
    for layer in range(L):
        np.testing.assert_allclose(gradient["blocks/recurrent/kernel"][layer], raw[layer].grad, atol=3e-5)


def test_a_known_rate_of_zero_changes_nothing_and_a_traced_one_is_the_number() -> None:
    model, key = lstm(), jax.random.key(5)
    params = drawn(model)
    bound = model.bind(params)
    assert isinstance(bound, NoisyParameters) and bound.with_noise(key) is bound

    def kernel(rate: Any) -> jax.Array:
        return parameters(lstm(weight_dropout=rate).bind(params).with_noise(key))["blocks/recurrent/kernel"]

    traced = jax.jit(jax.vmap(kernel))(jnp.array([0.0, 0.3]))
    np.testing.assert_allclose(traced[0], params["blocks/recurrent/kernel"])
    np.testing.assert_allclose(traced[1], kernel(0.3), rtol=1e-6)
    np.testing.assert_array_equal(parameters(bound)["blocks/recurrent/kernel"], params["blocks/recurrent/kernel"])


@pytest.mark.parametrize("packed", [True, False])
def test_charges_are_means_over_dropped_outputs_and_over_changes_of_raw_ones(packed: bool) -> None:
    model = ModelDef.of(
        lambda rngs: Elman(
            V, jnp.float32, rngs, width=D, dropout=0.4, init_scale=0.6, activation_reg=2.0, temporal_activation_reg=1.5
        )
    )
    params = drawn(model)
    keys = jax.random.split(jax.random.key(4), B)
    segments = SEGMENTS if packed else np.ones((B, T), int)

    @jax.jit
    def read(params: Any) -> Any:
        bound = model.bind(params)
        with collecting() as terms:
            states, _ = bound.hidden(TOKENS, segment_ids=jnp.asarray(segments) if packed else None, keys=keys)
        return states, bound.dropout(bound.embedding(TOKENS, jnp.float32), keys, 0), terms

    dropped, inputs, terms = jax.device_get(read(params))
    p = {path: np.asarray(value, np.float64) for path, value in params.items()}
    raw, h = np.zeros((B, T, D)), np.zeros((B, D))
    activation, changes, steps, pairs = 0.0, 0.0, 0, 0
    for t in range(T):
        if t:
            h = h * (segments[:, t] == segments[:, t - 1])[:, None]
        share = inputs[:, t] @ p["blocks/input/kernel"][0] + p["blocks/input/bias"][0]
        raw[:, t] = h = np.tanh(share + h @ p["blocks/recurrent/kernel"][0])
        for b in np.flatnonzero(segments[:, t]):
            activation, steps = activation + (np.float64(dropped[b, t]) ** 2).mean(), steps + 1
            if t and segments[b, t] == segments[b, t - 1]:
                changes, pairs = changes + ((raw[b, t] - raw[b, t - 1]) ** 2).mean(), pairs + 1
    assert not np.allclose(dropped, raw, atol=0.1)
    np.testing.assert_allclose(terms["activation"], (activation, steps, 2.0), rtol=1e-5)
    np.testing.assert_allclose(terms["temporal_activation"], (changes, pairs, 1.5), rtol=1e-5)
