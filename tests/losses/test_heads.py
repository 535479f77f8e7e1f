"""Losses over heads: labels, tags, spans and choices, against torch and against sums written out."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from encoders import Bag, PooledBag
from flax import nnx

from lmlab.losses.choice import Choice
from lmlab.losses.classification import Classification
from lmlab.losses.cross_entropy import class_sums
from lmlab.losses.span import Span
from lmlab.losses.tagging import Tagging
from lmlab.nn.heads import pooled

B, T, V, D = 5, 7, 11, 3
THERE = np.arange(T) < np.array([[T], [4], [1], [6], [0]])
DRAWN = np.random.default_rng(0)
TOKENS = DRAWN.integers(0, V, (B, T)) * THERE
ROWS = {
    "tokens": jnp.asarray(TOKENS),
    "segment_ids": jnp.asarray(THERE.astype(np.int32)),
    "type_ids": jnp.asarray((THERE & (np.arange(T) > 1)).astype(np.int32)),
}
WEIGHTS = np.array([1, 1, 1, 1, 0], np.float32)


def with_head(loss: Any, kind: type[Bag] = Bag) -> Any:
    """An encoder with the loss's head, of weights large enough to matter."""

    def make() -> Any:
        model = kind(V, nnx.Rngs(0), width=D)
        model.task_head = loss.make_head(D, nnx.Rngs(1))
        return model

    model = nnx.jit(make)()
    state = nnx.state(model.task_head, nnx.Param)
    leaves, structure = jax.tree.flatten(state)
    drawn = np.random.default_rng(3)
    nnx.update(
        model.task_head,
        jax.tree.unflatten(structure, [jnp.asarray(drawn.normal(size=x.shape), jnp.float32) for x in leaves]),
    )
    return model


def log_softmax(logits: np.ndarray) -> np.ndarray:
    logits = logits.astype(np.float64)
    top = logits.max(-1, keepdims=True)
    return logits - top - np.log(np.exp(logits - top).sum(-1, keepdims=True))


@pytest.mark.parametrize("smoothing", [0.0, 0.2])
def test_class_sums_are_torch_s_cross_entropy(smoothing: float) -> None:
    torch = pytest.importorskip("torch")
    logits = DRAWN.normal(size=(13, 5)).astype(np.float32)
    ids = DRAWN.integers(-1, 5, 13)
    weights = DRAWN.integers(0, 2, 13).astype(np.float32)
    assert (ids == -1).any() and (weights[ids >= 0] == 0).any()
    found, gradient = jax.value_and_grad(
        lambda x: class_sums(x, jnp.asarray(ids), jnp.asarray(weights), label_smoothing=smoothing).total
    )(jnp.asarray(logits))
    theirs = torch.tensor(logits, requires_grad=True)
    chosen = torch.tensor(np.where(weights > 0, ids, -1))
    total = torch.nn.functional.cross_entropy(
        theirs, chosen, ignore_index=-1, reduction="sum", label_smoothing=smoothing
    )
    total.backward()
    assert float(found) == pytest.approx(total.item(), rel=1e-5)
    np.testing.assert_allclose(gradient, theirs.grad.numpy(), atol=1e-6)
    assert theirs.grad[torch.tensor(ids) == -1].abs().max() == 0


def test_a_label_that_training_does_not_have_is_an_error_and_has_no_loss() -> None:
    logits = jnp.array([[3.0, 0.0], [3.0, 0.0], [0.0, 3.0]])
    output = class_sums(logits, jnp.array([0, -1, 0]), jnp.ones(3))
    assert [float(x) for x in output.metrics["accuracy"]] == [1.0, 3.0]
    assert float(output.weight) == 2 == float(output.metrics["nats"][1])
    assert float(output.total) == pytest.approx(-log_softmax(np.asarray(logits))[[0, 2], [0, 0]].sum(), rel=1e-6)


def test_classes_that_cannot_be_chosen_have_no_probability_even_smoothed() -> None:
    logits, there = DRAWN.normal(size=(4, 6)).astype(np.float32), np.arange(6) < np.array([[6], [3], [1], [0]])
    ids, weights = np.array([5, 1, 0, 0]), np.array([1, 1, 1, 0], np.float32)
    found = class_sums(*map(jnp.asarray, (logits, ids, weights)), there=jnp.asarray(there), label_smoothing=0.1)
    wanted = nats = 0.0
    for i in range(3):
        log_p = log_softmax(logits[i, there[i]])
        nats -= log_p[ids[i]]
        wanted -= 0.9 * log_p[ids[i]] + 0.1 * log_p.mean()
    assert float(found.total) == pytest.approx(wanted, rel=1e-5)
    assert float(found.metrics["nats"][0]) == pytest.approx(nats, rel=1e-5)


def test_a_row_s_vector_is_the_pooler_s_the_mean_or_the_last_state() -> None:
    states = DRAWN.normal(size=(B, T, D)).astype(np.float32)
    segments = ROWS["segment_ids"]
    model = nnx.jit(lambda: PooledBag(V, nnx.Rngs(0), width=D))()
    np.testing.assert_array_equal(pooled(model, jnp.asarray(states), segments), model.pool(jnp.asarray(states)))
    mean = pooled(nnx.jit(lambda: Bag(V, nnx.Rngs(0), width=D))(), jnp.asarray(states), segments)
    last = pooled(object(), jnp.asarray(states), segments)
    for b in range(B - 1):
        np.testing.assert_allclose(mean[b], states[b][THERE[b]].mean(0), rtol=1e-5)
        np.testing.assert_array_equal(last[b], states[b][THERE[b]][-1])
    assert np.isfinite(mean).all() and np.isfinite(last).all()


@pytest.mark.parametrize("kind", [Bag, PooledBag])
def test_classification_is_the_cross_entropy_of_a_linear_layer(kind: type[Bag]) -> None:
    loss = Classification(("x", "y", "z"))
    model, labels = with_head(loss, kind), np.array([2, 0, 1, -1, 0])
    batch = {**ROWS, "labels": jnp.asarray(labels), "weights": jnp.asarray(WEIGHTS)}
    output = jax.jit(lambda: loss(model, batch, None, jnp.int32(0)))()
    states = model.encode(ROWS["tokens"], segment_ids=ROWS["segment_ids"], type_ids=ROWS["type_ids"])
    if kind is PooledBag:
        vectors = np.asarray(model.pool(states))
    else:
        vectors = np.stack(
            [np.asarray(states)[b][THERE[b]].mean(0) if THERE[b].any() else np.zeros(D) for b in range(B)]
        )
    layer = model.task_head.logits
    log_p = log_softmax(vectors @ np.asarray(layer.kernel[...]) + np.asarray(layer.bias[...]))
    assert float(output.total) == pytest.approx(-log_p[[0, 1, 2], labels[:3]].sum(), rel=1e-5)
    assert float(output.weight) == 3
    right = (log_p.argmax(-1) == labels) & (WEIGHTS > 0)
    assert [float(x) for x in output.metrics["accuracy"]] == [right.sum(), 4]


WORDS = THERE & np.array([[0, 1, 1, 0, 1, 0, 1]] * B, bool)


def tag_batch(**more: Any) -> dict[str, jax.Array]:
    tags = DRAWN.integers(0, 4, (B, T)) * WORDS
    return {
        "tokens": ROWS["tokens"], "segment_ids": ROWS["segment_ids"],
        "tags": jnp.asarray(tags), "weights": jnp.asarray(WORDS.astype(np.float32)), **more,
    }  # fmt: skip


def tag_scores(model: Any) -> np.ndarray:
    states = np.asarray(model.encode(ROWS["tokens"], segment_ids=ROWS["segment_ids"]), np.float64)
    layer = model.task_head.tags.logits
    return states @ np.asarray(layer.kernel[...], np.float64) + np.asarray(layer.bias[...], np.float64)


def test_tagging_and_the_label_of_the_sentence_are_found_together() -> None:
    loss = Tagging(("O", "B-x", "I-x", "B-y"), ("p", "q"), label_weight=0.5)
    model, batch = with_head(loss, PooledBag), tag_batch(labels=jnp.array([1, 0, 1, -1, 0]))
    batch["tags"] = batch["tags"].at[0, 1].set(-1)
    output = jax.jit(lambda: loss(model, batch, None, jnp.int32(0)))()
    tags, known = np.asarray(batch["tags"]), WORDS & (np.asarray(batch["tags"]) >= 0)
    log_p = log_softmax(tag_scores(model))
    nats = -np.take_along_axis(log_p, np.maximum(tags, 0)[..., None], -1)[..., 0][known].sum()
    states = model.encode(ROWS["tokens"], segment_ids=ROWS["segment_ids"])
    layer = model.task_head.labels.logits
    of_labels = log_softmax(
        np.asarray(model.pool(states)) @ np.asarray(layer.kernel[...]) + np.asarray(layer.bias[...])
    )
    # The third and the last row have no words: they are no sentences, and the fourth's label is unknown.
    label_nats = -(of_labels[0, 1] + of_labels[1, 0])
    assert float(output.metrics["nats"][0]) == pytest.approx(nats, rel=1e-5)
    assert float(output.total) == pytest.approx(nats + 0.5 * label_nats, rel=1e-5)
    assert float(output.weight) == known.sum()
    assert [float(output.metrics[name][1]) for name in ("accuracy", "label_nats", "label_accuracy")] == [
        WORDS.sum(),
        2,
        3,
    ]


def test_a_crf_scores_the_words_of_a_sentence_as_one_sequence() -> None:
    loss = Tagging(("O", "B-x", "I-x", "B-y"), (), crf=True)
    model, batch = with_head(loss), tag_batch()
    batch["tags"] = batch["tags"].at[3, 1].set(-1)  # this sentence does not count
    output, predicted = jax.jit(
        lambda: (
            loss(model, batch, None, jnp.int32(0)),
            loss.predicted(model, loss.scores(model, batch)[0], batch["weights"] > 0),
        )
    )()
    scores, chain, tags = tag_scores(model).astype(np.float32), model.task_head.chain, np.asarray(batch["tags"])
    total = right = 0.0
    for b in range(B):
        words = WORDS[b]
        if not words.any():
            continue
        alone = (scores[b][words][None], np.ones((1, words.sum()), bool))
        best = np.asarray(chain.best(*alone))[0]
        np.testing.assert_array_equal(np.asarray(predicted)[b][words], best)
        right += (best == tags[b][words]).sum()
        if b != 3:
            total -= float(chain.log_probability(alone[0], tags[b][words][None], alone[1])[0])
    assert float(output.total) == pytest.approx(total, rel=1e-5)
    assert float(output.weight) == WORDS.sum() - WORDS[3].sum()
    assert [float(x) for x in output.metrics["accuracy"]] == [right, WORDS.sum()]


def test_a_span_s_edges_are_found_among_the_tokens_that_are_there() -> None:
    torch = pytest.importorskip("torch")
    loss = Span()
    model, starts, ends = with_head(loss), np.array([3, 2, 0, 0, 0]), np.array([5, 2, 0, 4, 0])
    batch = {**ROWS, "starts": jnp.asarray(starts), "ends": jnp.asarray(ends), "weights": jnp.asarray(WEIGHTS)}
    output = jax.jit(lambda: loss(model, batch, None, jnp.int32(0)))()
    states = model.encode(ROWS["tokens"], segment_ids=ROWS["segment_ids"], type_ids=ROWS["type_ids"])
    layer = model.task_head.logits
    scores = np.asarray(states) @ np.asarray(layer.kernel[...]) + np.asarray(layer.bias[...])
    scores = torch.tensor(np.where(THERE[..., None], scores, -np.inf))[:4]
    wanted = [
        torch.nn.functional.cross_entropy(scores[..., i], torch.tensor(gold[:4]), reduction="sum").item()
        for i, gold in enumerate((starts, ends))
    ]
    assert float(output.total) == pytest.approx(sum(wanted), rel=1e-5)
    assert float(output.metrics["nats"][0]) == pytest.approx(sum(wanted), rel=1e-5)
    hits = (scores.argmax(1).numpy() == np.stack([starts, ends], 1)[:4]).sum(0)
    assert [float(output.metrics[name][0]) for name in ("start_accuracy", "end_accuracy")] == hits.tolist()


def test_a_choice_is_made_among_the_readings_that_are_there() -> None:
    loss, choices = Choice(dropout=0.5), 3
    model = with_head(loss, PooledBag)
    tokens = DRAWN.integers(1, V, (2, choices, T))
    there = np.ones((2, choices, T), np.int32)
    there[1, 2] = 0  # the second question has two choices
    there[0, 1, 4:] = 0
    batch = {
        "tokens": jnp.asarray(tokens * there), "segment_ids": jnp.asarray(there),
        "labels": jnp.array([2, 0]), "weights": jnp.ones(2),
    }  # fmt: skip
    output, noisy = jax.jit(lambda keys: (loss(model, batch, None, jnp.int32(0)), loss.scores(model, batch, keys)))(
        jax.random.split(jax.random.key(0), 2)
    )
    layer, wanted = model.task_head.logits, 0.0
    for b, (label, count) in enumerate(((2, 3), (0, 2))):
        rows, segments = jnp.asarray((tokens * there)[b, :count]), jnp.asarray(there[b, :count])
        vectors = np.asarray(model.pool(model.encode(rows, segment_ids=segments)))
        scores = (vectors @ np.asarray(layer.kernel[...]) + np.asarray(layer.bias[...]))[:, 0]
        wanted -= log_softmax(scores)[label]
    assert float(output.total) == pytest.approx(wanted, rel=1e-5)
    assert len(set(np.asarray(noisy)[0].tolist())) == choices  # dropout draws for each reading
