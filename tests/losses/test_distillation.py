"""What a teacher's probabilities and states teach: sums and gradients in float64 NumPy, by their closed forms."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from encoders import Bag
from flax import nnx

from lmlab.contracts import Spec
from lmlab.losses.autoregressive import Autoregressive
from lmlab.losses.distillation import Distillation, MaskedDistillation

B, T, D, E, V = 3, 7, 5, 4, 11
TEMPERATURE, ALPHA, HIDDEN, SMOOTHING = 1.7, 0.3, 0.6, 0.1


class Table(nnx.Module):
    """A state for each token, and a layer over it."""

    def __init__(self, width: int, seed: int) -> None:
        drawn = np.random.default_rng(seed)
        self.states = nnx.Param(jnp.asarray(drawn.normal(size=(V, width)), jnp.float32))
        self.head = nnx.Param(jnp.asarray(drawn.normal(size=(width, V)), jnp.float32))

    def hidden(self, tokens: Any, *, keys: Any = None, **given: Any) -> Any:
        return self.states[...][tokens], None

    def project(self, hidden: Any) -> Any:
        return hidden @ self.head[...]


def objective(**settings: Any) -> Distillation:
    return Distillation(teacher=Spec("model", "table"), run="runs/teacher", temperature=TEMPERATURE, **settings)


def rows() -> dict[str, jax.Array]:
    drawn = np.random.default_rng(2)
    fields = {name: drawn.integers(0, V, (B, T)) for name in ("tokens", "targets")}
    return jax.tree.map(jnp.asarray, {**fields, "weights": (np.arange(T) < [[7], [4], [1]]).astype(np.float32)})


@pytest.fixture(scope="module")
def measured() -> Any:
    """Output and gradient, by chunk; and the module."""
    model = Table(D, 0)
    model.teacher = Table(E, 1)
    model.task_head = objective(hidden_weight=HIDDEN).make_head(D, nnx.Rngs(3), E)
    graphdef, params = nnx.split(model)

    def value(params: Any, chunk: int | None) -> Any:
        loss = objective(alpha=ALPHA, hidden_weight=HIDDEN, label_smoothing=SMOOTHING, chunk=chunk)
        output = loss(nnx.merge(graphdef, params), rows(), None, jnp.int32(0))
        return output.total, output

    run = jax.jit(jax.grad(value, has_aux=True), static_argnums=1)
    return model, run(params, None), run(params, 3)


def softmax(x: np.ndarray) -> np.ndarray:
    e = np.exp(x - x.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


def test_sums_and_gradients_are_those_of_the_formula(measured: Any) -> None:
    model, (gradient, output), _ = measured
    batch = {name: np.asarray(x).reshape(-1) for name, x in rows().items()}
    weights = np.asarray(batch["weights"], np.float64)[:, None]
    states, head, theirs, their_head, matrix = (
        np.asarray(x[...], np.float64)
        for x in (
            model.states, model.head, model.teacher.states, model.teacher.head, model.task_head.kernel
        )
    )  # fmt: skip
    h, g = states[batch["tokens"]], theirs[batch["tokens"]]
    logits, taught = h @ head, g @ their_head

    p, q = softmax(logits / TEMPERATURE), softmax(taught / TEMPERATURE)
    kl = (q * (np.log(q) - np.log(p)) * weights).sum()
    wanted = (1 - SMOOTHING) * np.eye(V)[batch["targets"]] + SMOOTHING / V
    hard = -(wanted * np.log(softmax(logits)) * weights).sum()
    x = h @ matrix
    lengths = np.linalg.norm(x, axis=-1, keepdims=True), np.linalg.norm(g, axis=-1, keepdims=True)
    cosine = (x * g).sum(-1, keepdims=True) / (lengths[0] * lengths[1])
    distance = ((1 - cosine) * weights).sum()

    total = ALPHA * TEMPERATURE**2 * kl + (1 - ALPHA) * hard + HIDDEN * distance
    np.testing.assert_allclose(output.total, total, rtol=1e-5)
    assert output.weight == weights.sum()
    np.testing.assert_allclose(output.metrics["kl"][0], kl, rtol=1e-5)
    np.testing.assert_allclose(output.metrics["cosine_distance"][0], distance, rtol=1e-5)

    of_logits = (ALPHA * TEMPERATURE * (p - q) + (1 - ALPHA) * (softmax(logits) - wanted)) * weights
    of_x = -HIDDEN * (g / (lengths[0] * lengths[1]) - cosine * x / lengths[0] ** 2) * weights
    np.testing.assert_allclose(gradient["head"][...], h.T @ of_logits, atol=1e-5)
    np.testing.assert_allclose(gradient["task_head"]["kernel"][...], h.T @ of_x, atol=1e-5)
    of_states = np.zeros_like(states)
    np.add.at(of_states, batch["tokens"], of_logits @ head.T + of_x @ matrix.T)
    np.testing.assert_allclose(gradient["states"][...], of_states, atol=1e-5)
    assert not any(np.any(leaf) for leaf in jax.tree.leaves(gradient["teacher"]))


def test_in_chunks_it_is_the_same(measured: Any) -> None:
    _, whole, pieces = measured
    for one, other in zip(*map(jax.tree.leaves, (whole, pieces)), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-5)


def test_masked_tokens_are_learned_from_a_teacher_that_reads_the_same() -> None:
    """In NumPy, from what the student reads; and only the tokens that were chosen count."""
    model = Bag(V, nnx.Rngs(0), width=D)
    model.teacher = Bag(V, nnx.Rngs(1), width=E)
    settings = {"teacher": Spec("model", "bag"), "run": "runs/teacher", "temperature": TEMPERATURE, "alpha": ALPHA}
    loss = MaskedDistillation(vocab=V, special_ids={"mask": V - 1}, rate=0.4, hidden_weight=HIDDEN, **settings)
    model.task_head = loss.make_head(D, nnx.Rngs(3), E)
    there = (np.arange(T) < [[7], [4], [1]]).astype(np.int32)
    tokens = jnp.asarray(np.random.default_rng(2).integers(0, V - 1, (B, T)) * there)
    batch = {"tokens": tokens, "segment_ids": there, "weights": there.astype(np.float32), "word_starts": there > 0}

    @jax.jit
    def measure() -> Any:
        read, chosen = loss.masked(batch, None)
        states, theirs = (m.encode(read, segment_ids=there) for m in (model, model.teacher))
        found = model.project(states), model.teacher.project(theirs), model.task_head(states), theirs, chosen
        return found, loss(model, batch, None, jnp.int32(0))

    found, output = jax.device_get(measure())
    chosen = found[-1]
    logits, taught, x, g = (np.asarray(value, np.float64)[chosen] for value in found[:-1])
    p, q = softmax(logits / TEMPERATURE), softmax(taught / TEMPERATURE)
    kl = (q * (np.log(q) - np.log(p))).sum(-1)
    hard = -np.take_along_axis(np.log(softmax(logits)), np.asarray(tokens)[chosen][:, None], -1)[:, 0]
    distance = 1 - (x * g).sum(-1) / np.linalg.norm(x, axis=-1) / np.linalg.norm(g, axis=-1)
    total = ALPHA * TEMPERATURE**2 * kl + (1 - ALPHA) * hard + HIDDEN * distance
    assert output.weight == chosen.sum() > 2
    np.testing.assert_allclose(output.total, total.sum(), rtol=1e-5)
    np.testing.assert_allclose(output.metrics["kl"][0], kl.sum(), rtol=1e-5)


def test_without_the_teachers_share_it_is_autoregressive_and_states_of_one_width_need_no_matrix() -> None:
    model = Table(D, 0)
    model.teacher = Table(D, 1)
    model.task_head = objective(hidden_weight=HIDDEN).make_head(D, nnx.Rngs(3), D)
    assert model.task_head is None and objective().make_head(D, nnx.Rngs(3), E) is None
    plain = Autoregressive()(model, rows(), None, jnp.int32(0))
    output = objective(alpha=0.0)(model, rows(), None, jnp.int32(0))
    np.testing.assert_allclose(output.total, plain.total, rtol=1e-6)
    assert output.metrics["nats"] == plain.metrics["nats"] and "cosine_distance" not in output.metrics
