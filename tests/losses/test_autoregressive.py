"""The next-token loss, against its formulae in float64 NumPy."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from lmlab.losses.autoregressive import Autoregressive
from lmlab.nn.linear import Linear, normal

B, T, D, V = 3, 7, 5, 11


class Fixed(nnx.Module):
    """A model whose states do not depend on the tokens: what is tested is the loss."""

    def __init__(self) -> None:
        self.states = nnx.Param(jax.random.normal(jax.random.key(1), (B, T, D)), role="embedding")
        self.head = Linear(D, V, normal(1.5), bias=False, rngs=nnx.Rngs(0))

    def hidden(self, tokens: jax.Array, **given: Any) -> tuple[jax.Array, None]:
        return self.states[...], None

    def project(self, hidden: jax.Array) -> jax.Array:
        return self.head(hidden)

    def init_cache(self, batch: int, length: int) -> None:
        return None


def batch() -> dict[str, jax.Array]:
    ids = jax.random.randint(jax.random.key(2), (2, B, T), 0, V)
    weights = jnp.ones((B, T)).at[0, 5:].set(0).at[2].set(0).at[1, 2].set(0.5)
    return {"tokens": ids[0], "targets": ids[1], "weights": weights}


def log_probabilities() -> tuple[np.ndarray, np.ndarray]:
    """log p (B, T, V) and log Z (B, T) in float64."""
    model = Fixed()
    logits = np.asarray(model.states[...], np.float64) @ np.asarray(model.head.kernel[...], np.float64)
    log_z = np.log(np.exp(logits).sum(-1))
    return logits - log_z[..., None], log_z


def total(loss: Autoregressive) -> float:
    return float(loss(Fixed(), batch(), None, jnp.int32(0)).total)


def nats() -> np.ndarray:
    log_p, _ = log_probabilities()
    return -np.take_along_axis(log_p, np.asarray(batch()["targets"])[..., None], -1)[..., 0]


def test_the_loss_is_the_weighted_sum_of_minus_log_probabilities() -> None:
    weights = np.asarray(batch()["weights"], np.float64)
    output = Autoregressive()(Fixed(), batch(), None, jnp.int32(0))
    assert float(output.total) == pytest.approx((nats() * weights).sum(), rel=1e-6)
    assert float(output.weight) == weights.sum() == 11.5
    assert float(output.metrics["nats"][0]) == pytest.approx((nats() * weights).sum(), rel=1e-6)


def test_accuracy_counts_the_weighted_hits() -> None:
    log_p, _ = log_probabilities()
    hits = log_p.argmax(-1) == np.asarray(batch()["targets"])
    value, weight = Autoregressive()(Fixed(), batch(), None, jnp.int32(0)).metrics["accuracy"]
    assert float(value) == pytest.approx((hits * np.asarray(batch()["weights"])).sum())
    assert float(weight) == 11.5


def test_label_smoothing_mixes_in_the_uniform_distribution() -> None:
    log_p, _ = log_probabilities()
    wanted = 0.9 * nats() + 0.1 * -log_p.mean(-1)
    assert total(Autoregressive(label_smoothing=0.1)) == pytest.approx(
        (wanted * np.asarray(batch()["weights"])).sum(), rel=1e-6
    )


def test_z_loss_adds_the_squared_log_normaliser() -> None:
    _, log_z = log_probabilities()
    wanted = nats() + 0.01 * log_z**2
    assert total(Autoregressive(z_loss=0.01)) == pytest.approx(
        (wanted * np.asarray(batch()["weights"])).sum(), rel=1e-6
    )


def test_metrics_are_unsmoothed() -> None:
    plain = Autoregressive()(Fixed(), batch(), None, jnp.int32(0)).metrics
    other = Autoregressive(label_smoothing=0.3, z_loss=0.1)(Fixed(), batch(), None, jnp.int32(0)).metrics
    assert float(plain["nats"][0]) == float(other["nats"][0])


def test_smoothing_and_z_loss_may_be_traced() -> None:
    def loss(smoothing: Any, z: Any) -> jax.Array:
        return Autoregressive(smoothing, z)(Fixed(), batch(), None, jnp.int32(0)).total

    pairs = [(0.0, 0.0), (0.1, 1e-2)]
    traced = jax.jit(jax.vmap(loss))(*jnp.array(pairs).T)
    np.testing.assert_allclose(traced, [loss(*pair) for pair in pairs], rtol=1e-6)


@pytest.mark.parametrize("chunk", [1, 3, T])
def test_projecting_in_chunks_changes_neither_sums_nor_gradients(chunk: int) -> None:
    graphdef, params = nnx.split(Fixed())

    def run(loss: Autoregressive) -> Any:
        def value(params: Any) -> tuple[jax.Array, Any]:
            output = loss(nnx.merge(graphdef, params), batch(), None, jnp.int32(0))
            return output.total, output

        return jax.value_and_grad(value, has_aux=True)(params)

    whole, parts = run(Autoregressive(0.1, 1e-2)), run(Autoregressive(0.1, 1e-2, chunk=chunk))
    for a, b in zip(jax.tree.leaves(parts), jax.tree.leaves(whole), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)


def test_the_gradient_is_the_probabilities_minus_the_targets() -> None:
    class Direct(Fixed):
        def project(self, hidden: jax.Array) -> jax.Array:
            return hidden

    model = Direct()
    model.states = nnx.Param(jax.random.normal(jax.random.key(3), (B, T, V)), role="embedding")
    graphdef, params = nnx.split(model)

    def value(params: Any) -> jax.Array:
        return Autoregressive()(nnx.merge(graphdef, params), batch(), None, jnp.int32(0)).total

    got = jax.grad(value)(params)["states"][...]
    logits = np.asarray(model.states[...], np.float64)
    shares = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
    wanted = (shares - np.eye(V)[np.asarray(batch()["targets"])]) * np.asarray(batch()["weights"])[..., None]
    np.testing.assert_allclose(got, wanted, atol=1e-6)


@pytest.mark.long
def test_projecting_in_chunks_takes_a_third_of_the_memory_at_most_at_equal_gradients() -> None:
    """At V = 50,257, by XLA's own account of the gradient's temporary memory."""
    rows, length, vocab, width = 4, 128, 50_257, 32

    def make() -> Fixed:
        model = Fixed()
        model.states = nnx.Param(jax.random.normal(jax.random.key(0), (rows, length, width)), role="embedding")
        model.head = Linear(width, vocab, normal(0.5), rngs=nnx.Rngs(1))
        return model

    graphdef, params = nnx.split(nnx.jit(make)())
    ids = jax.random.randint(jax.random.key(2), (2, rows, length), 0, vocab)
    weights = jnp.ones((rows, length)).at[1, 70:].set(0)
    given = {"tokens": ids[0], "targets": ids[1], "weights": weights}

    def compiled(chunk: int | None) -> Any:
        def total(params: Any, batch: Any) -> jax.Array:
            return Autoregressive(chunk=chunk)(nnx.merge(graphdef, params), batch, None, jnp.int32(0)).total

        return jax.jit(jax.grad(total)).lower(params, given).compile()

    whole, parts = compiled(None), compiled(16)
    taken = [program.memory_analysis().temp_size_in_bytes for program in (parts, whole)]
    assert taken[1] > rows * length * vocab * 4
    assert 3 * taken[0] <= taken[1], taken
    for a, b in zip(jax.tree.leaves(parts(params, given)), jax.tree.leaves(whole(params, given)), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)
