"""The loss of targets given their sources: formulae in float64, and a loop that reads everything anew."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lmlab.contracts import LossOutput
from lmlab.losses.seq2seq import Seq2Seq
from lmlab.models.rnn_seq2seq import RNNSeq2Seq
from lmlab.nn.functional import ModelDef, Params
from tests.drawn import drawn

B, S, T, D, V = 13, 5, 7, 6, 11
WEIGHTS = np.arange(T) < np.array([7, 5, 1, 0, *range(1, 8), 2, 3])[:, None]
KEYS = jax.random.split(jax.random.key(7), B)


@pytest.fixture(scope="module")
def model() -> ModelDef[RNNSeq2Seq]:
    return ModelDef.of(
        lambda rngs: RNNSeq2Seq(V, jnp.float32, rngs, width=D, attention="luong_dot", init_scale=1.5, cell="gru")
    )


@pytest.fixture(scope="module")
def params(model: ModelDef[RNNSeq2Seq]) -> Params:
    return drawn(model, 3, std=0.7)


def batch() -> dict[str, jax.Array]:
    source, tokens, targets = (jax.random.randint(jax.random.key(n), (B, length), 0, V)
                               for n, length in enumerate((S, T, T)))  # fmt: skip
    there = (jnp.arange(S) < 1 + jnp.arange(B)[:, None] % S).astype(jnp.int32)
    return {
        "source_tokens": source,
        "source_segment_ids": there,
        "tokens": tokens,
        "targets": targets,
        "weights": jnp.asarray(WEIGHTS, jnp.float32),
    }


@pytest.fixture(scope="module")
def measure(model: ModelDef[RNNSeq2Seq]) -> Any:
    """`(loss, params, batch, keys) -> (sums, gradient)`."""

    def run(loss: Seq2Seq, params: Params, batch: Any, keys: Any = None) -> Any:
        @jax.jit
        def value_and_gradient(params: Params) -> Any:
            def value(params: Params) -> tuple[jax.Array, LossOutput]:
                output = loss(model.bind(params), batch, keys, jnp.int32(0))
                return output.total, output

            gradient, output = jax.grad(value, has_aux=True)(params)
            return output, gradient

        return value_and_gradient(params)

    return run


def logits_of(model: ModelDef[RNNSeq2Seq], params: Params, batch: dict[str, jax.Array]) -> jax.Array:
    bound = model.bind(params)
    memory = bound.encode_source(batch["source_tokens"], segment_ids=batch["source_segment_ids"])
    return bound.project(bound.decode(batch["tokens"], memory)[0])


def test_sums_are_those_of_the_formulae(model: Any, params: Params, measure: Any) -> None:
    given = batch()
    log_p = np.asarray(logits_of(model, params, given), np.float64)
    log_p -= np.log(np.exp(log_p).sum(-1, keepdims=True))
    # Rows 4 and 5 are made right, so that not all rows are wrong.
    given["targets"] = given["targets"].at[4:6].set(log_p.argmax(-1)[4:6])
    nats = -np.take_along_axis(log_p, np.asarray(given["targets"])[..., None], -1)[..., 0]
    right = log_p.argmax(-1) == np.asarray(given["targets"])
    output, _ = measure(Seq2Seq(label_smoothing=0.1), params, given)
    assert float(output.total) == pytest.approx(((0.9 * nats + 0.1 * -log_p.mean(-1)) * WEIGHTS).sum(), rel=1e-5)
    assert float(output.weight) == WEIGHTS.sum()
    rows = WEIGHTS.any(1)
    wanted = {
        "nats": ((nats * WEIGHTS).sum(), WEIGHTS.sum()),
        "accuracy": ((right * WEIGHTS).sum(), WEIGHTS.sum()),
        "sequence_accuracy/teacher_forced": ((right | ~WEIGHTS).all(1)[rows].sum(), rows.sum()),
    }
    assert 2 <= wanted["sequence_accuracy/teacher_forced"][0] < rows.sum()
    assert output.metrics.keys() == wanted.keys()
    for name, pair in wanted.items():
        np.testing.assert_allclose(output.metrics[name], pair, rtol=1e-5, err_msg=name)


def test_projecting_in_chunks_changes_neither_sums_nor_gradients(params: Params, measure: Any) -> None:
    whole = measure(Seq2Seq(0.1), params, batch())
    for a, b in zip(
        jax.tree.leaves(measure(Seq2Seq(0.1, chunk=3), params, batch())), jax.tree.leaves(whole), strict=True
    ):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5)


def own_inputs(model: Any, params: Params, given: dict[str, jax.Array]) -> jax.Array:
    """Each input after the first is the most probable id after those before it, all of which are read anew."""
    logits = jax.jit(lambda tokens: logits_of(model, params, {**given, "tokens": tokens}))
    tokens = np.array(given["tokens"])
    for t in range(1, T):
        tokens[:, t] = np.asarray(logits(jnp.asarray(tokens)))[:, t - 1].argmax(-1)
    return jnp.asarray(tokens)


def test_without_a_teacher_rows_read_what_the_model_writes(model: Any, params: Params, measure: Any) -> None:
    given = batch()
    own = {**given, "tokens": own_inputs(model, params, given)}
    assert (own["tokens"] != given["tokens"]).mean() > 0.5
    (found, gradient), (wanted, as_data) = (
        measure(Seq2Seq(teacher_forcing=0.0), params, given, KEYS),
        measure(Seq2Seq(), params, own, KEYS),
    )
    np.testing.assert_allclose(found.total, wanted.total, rtol=1e-5)
    assert found.metrics["sequence_accuracy/teacher_forced"] == (0, 0)
    for path, value in as_data.items():
        np.testing.assert_allclose(gradient[path], value, rtol=1e-4, atol=1e-4, err_msg=path)


def test_each_row_has_a_teacher_or_none_and_a_traced_probability_will_do(model: Any, params: Params) -> None:
    given = batch()

    @jax.jit
    def totals(probability: jax.Array) -> jax.Array:
        """The loss of every row."""

        def of_row(row: Any, key: jax.Array) -> jax.Array:
            one = jax.tree.map(lambda value: value[None], row)
            return Seq2Seq(teacher_forcing=probability)(model.bind(params), one, key[None], jnp.int32(0)).total

        return jax.vmap(of_row)(given, KEYS)

    never, always, half = (np.asarray(totals(jnp.float32(p))) for p in (0, 1, 0.5))
    taught, alone = np.isclose(half, always, rtol=1e-5), np.isclose(half, never, rtol=1e-5)
    assert (taught | alone).all() and (taught & ~alone).any() and (alone & ~taught).any()
    plain = Seq2Seq()(model.bind(params), given, KEYS, jnp.int32(0)).total
    np.testing.assert_allclose(always.sum(), plain, rtol=1e-5)


def test_evaluations_read_the_target(params: Params, measure: Any) -> None:
    found, wanted = (measure(Seq2Seq(teacher_forcing=p), params, batch())[0].total for p in (0.0, 1.0))
    assert float(found) == float(wanted)
