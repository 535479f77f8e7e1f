"""Masked language modelling: every chosen token counts, however many are projected at a time, and no other does."""

from __future__ import annotations

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from encoders import Bag, PooledBag
from flax import nnx

from lmlab.errors import ConfigError
from lmlab.losses.cross_entropy import at_ids
from lmlab.losses.mlm import MaskedLM
from lmlab.losses.mlm_nsp import MaskedNextSentence
from lmlab.losses.sop import SentenceOrder
from lmlab.nn.randomness import keys_for

B, T, V = 7, 23, 19
SPECIAL = {"mask": 17, "end_of_text": 18}


def batch() -> dict[str, jax.Array]:
    """Rows of several lengths; a special id at the end of each, and padding behind."""
    drawn = np.random.default_rng(0)
    there = np.arange(T) < np.array([[T], [20], [11], [T], [3], [17], [1]])
    tokens = np.where(there, drawn.integers(0, 17, (B, T)), 0)
    ends = there & ~np.roll(there, -1, axis=1)
    ends[:, -1] = there[:, -1]
    tokens[ends] = SPECIAL["end_of_text"]
    weights = (there & ~ends).astype(np.float32)
    starts = (weights > 0) & (drawn.random((B, T)) < 0.6)
    starts[:, 0] = weights[:, 0] > 0
    fields = {"tokens": tokens, "segment_ids": there.astype(np.int32), "weights": weights, "word_starts": starts}
    return jax.tree.map(jnp.asarray, fields)


def loss(**settings: Any) -> MaskedLM:
    return MaskedLM(V, SPECIAL, **settings)


GRAPHDEF, PARAMS = nnx.split(nnx.jit(lambda: Bag(V, nnx.Rngs(0), width=5))())
KEYS = jax.random.split(jax.random.key(1), B)


def plain_total(loss: MaskedLM, model: Any, rows: Any, keys: Any) -> jax.Array:
    """The loss as one projects everything and keeps what was chosen."""
    tokens, chosen = loss.masked(rows, keys)
    states = model.encode(tokens, segment_ids=rows["segment_ids"], keys=keys)
    logits = model.project(states.reshape(-1, states.shape[-1]))
    nats = jax.nn.logsumexp(logits, -1) - at_ids(logits, rows["tokens"].reshape(-1))
    return jnp.where(chosen.reshape(-1), nats, 0).sum()


@functools.cache
def measured(chunk: int | None) -> Any:
    """A function of (rate, keys): the loss's output and its gradient; with chunk 0, the plain total and its."""

    def value(params: Any, rate: Any, keys: Any) -> tuple[jax.Array, Any]:
        model, objective = nnx.merge(GRAPHDEF, params), loss(rate=rate, chunk=chunk or None)
        if chunk == 0:
            return plain_total(objective, model, batch(), keys), objective.masked(batch(), keys)[1].sum()
        output = objective(model, batch(), keys, jnp.int32(0))
        return output.total, output

    compiled = jax.jit(jax.value_and_grad(value, has_aux=True))
    return lambda rate, keys: compiled(PARAMS, rate, keys)


def test_the_loss_is_minus_the_log_probability_of_the_chosen_tokens() -> None:
    model, rows = nnx.merge(GRAPHDEF, PARAMS), batch()
    output = measured(None)(0.3, None)[0][1]
    read, chosen = loss(rate=0.3).masked(rows, None)
    states = np.asarray(jax.jit(model.encode)(read, segment_ids=rows["segment_ids"]), np.float64)
    logits = states @ np.asarray(model.head.kernel[...], np.float64) + np.asarray(model.head.bias[...], np.float64)
    log_p = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
    tokens, chosen = np.asarray(rows["tokens"]), np.asarray(chosen)
    nats = -np.take_along_axis(log_p, tokens[..., None], -1)[..., 0]
    assert chosen.sum() > 20
    assert float(output.total) == pytest.approx(nats[chosen].sum(), rel=1e-5)
    assert float(output.weight) == chosen.sum() == float(output.metrics["nats"][1])
    assert float(output.metrics["accuracy"][0]) == (log_p.argmax(-1) == tokens)[chosen].sum()
    assert [float(x) for x in output.metrics["chosen"]] == [chosen.sum(), np.asarray(rows["weights"]).sum()]


@pytest.mark.parametrize("chunk", [None, 4])
def test_however_many_are_chosen_none_is_left_out(chunk: int | None) -> None:
    """Also where a row has more chosen tokens than are projected at a time; nor where none is chosen at all."""
    for rate in (0.0, 0.15, 0.5, 1.0):
        (total, output), gradient = measured(chunk)(rate, KEYS)
        (wanted, count), plain = measured(0)(rate, KEYS)
        np.testing.assert_allclose(total, wanted, rtol=1e-5)
        assert float(output.weight) == count and (count > 0) == (rate > 0)
        for a, b in zip(jax.tree.leaves(gradient), jax.tree.leaves(plain), strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)


def test_an_evaluation_masks_a_row_by_its_content() -> None:
    rows, objective = batch(), loss(rate=0.4)
    read, chosen = objective.masked(rows, None)
    other = jax.tree.map(lambda x: x[::-1], rows)
    np.testing.assert_array_equal(objective.masked(other, None)[0][::-1], read)
    changed = {**rows, "tokens": rows["tokens"].at[0, 0].add(1)}
    again = objective.masked(changed, None)[1]
    assert (again[0] != chosen[0]).any() and (again[1:] == chosen[1:]).all()


def test_masks_are_drawn_beside_dropout_and_anew_for_other_keys() -> None:
    rows, objective = batch(), loss(rate=0.5)
    chosen = objective.masked(rows, KEYS)[1]
    assert (objective.masked(rows, jax.random.split(jax.random.key(2), B))[1] != chosen).any()
    # Dropout's sites are small numbers folded into the same keys: none of them draws what the masks are drawn from.
    site = [jax.random.key_data(jax.vmap(lambda k, s=s: jax.random.fold_in(k, s))(KEYS)) for s in range(99)]
    split = jax.random.key_data(jax.vmap(lambda k: jax.random.split(k, 3))(keys_for(KEYS, "masking")))
    drawn = {tuple(key) for key in np.asarray(split).reshape(-1, 2).tolist()}
    assert not drawn & {tuple(key) for key in np.concatenate(site).tolist()}


def test_whole_words_and_spans_are_chosen_where_asked() -> None:
    rows = batch()
    number = np.cumsum(np.asarray(rows["word_starts"]), axis=1)
    chosen = np.asarray(loss(rate=0.4, whole_words=True).masked(rows, KEYS)[1])
    for b in range(B):
        for word in set(number[b].tolist()):
            inside = (number[b] == word) & (np.asarray(rows["weights"])[b] > 0)
            assert len(set(chosen[b][inside].tolist())) < 2
    alone, spans = (np.asarray(loss(rate=0.4, span=span).masked(rows, KEYS)[1]) for span in (None, 5.0))
    assert np.diff(spans.astype(int)).astype(bool).sum() < 0.7 * np.diff(alone.astype(int)).astype(bool).sum()


@pytest.mark.parametrize(("question", "name"), [(MaskedNextSentence, "next"), (SentenceOrder, "order")])
def test_the_question_of_two_passages_is_answered_from_the_same_reading(question: Any, name: str) -> None:
    """And a row counts as many tokens as are chosen from it on average."""
    objective = question(V, SPECIAL, rate=0.3, **{f"{name}_weight": 0.5})

    def make() -> Any:
        model = PooledBag(V, nnx.Rngs(0), width=5)
        model.task_head = objective.make_head(5, nnx.Rngs(1))
        return model

    model, rows = nnx.jit(make)(), batch()
    types = (jnp.arange(T) > 4) & (rows["segment_ids"] > 0)
    follows, there = jnp.array([1, 0, 1, 1, 0, 0, 1]), jnp.array([1, 1, 1, 0, 1, 1, 1.0])
    more = {"type_ids": types.astype(jnp.int32), "follows": follows, "pair_weights": there}
    output = jax.jit(lambda: objective(model, {**rows, **more}, None, jnp.int32(0)))()
    read, chosen = objective.masked(rows, None)
    states = jax.jit(model.encode)(read, segment_ids=rows["segment_ids"], type_ids=more["type_ids"])
    masked = objective.sums(model, states, rows, chosen)
    layer = model.task_head.logits
    logits = np.asarray(model.pool(states)) @ np.asarray(layer.kernel[...], np.float64) + np.asarray(layer.bias[...])
    nats = np.log(np.exp(logits).sum(-1)) - logits[np.arange(B), follows]
    expected = 0.3 * np.asarray(rows["weights"]).sum(1)
    assert float(output.weight) == np.asarray(chosen).sum()
    wanted = float(masked.total) + 0.5 * (nats * expected * np.asarray(there)).sum()
    assert float(output.total) == pytest.approx(wanted, rel=1e-5)
    assert float(output.metrics[f"{name}_nats"][0]) == pytest.approx((nats * np.asarray(there)).sum(), rel=1e-5)
    assert float(output.metrics[f"{name}_accuracy"][1]) == 6


def test_what_cannot_be_masked_is_refused_with_the_way_out() -> None:
    with pytest.raises(ConfigError, match=r"needs an id for 'mask'; there are end_of_text\."):
        MaskedLM(V, {"end_of_text": 18})
    with pytest.raises(ConfigError, match=r"keep = 0\.7 and random = 0.4 are shares"):
        loss(keep=0.7, random=0.4)


@pytest.mark.long
def test_the_projection_of_chosen_tokens_takes_a_third_of_the_memory_of_all() -> None:
    """At V = 50,257 and 15 %, by XLA's own account of the gradient's temporary memory."""
    rows, length, vocab, width = 8, 256, 50_257, 64
    shapes = {"tokens": jnp.int32, "segment_ids": jnp.int32, "weights": jnp.float32, "word_starts": jnp.bool_}
    abstract = {name: jax.ShapeDtypeStruct((rows, length), dtype) for name, dtype in shapes.items()}
    graphdef, params = nnx.split(nnx.eval_shape(lambda: Bag(vocab, nnx.Rngs(0), width=width)))
    keys = jax.eval_shape(lambda: jax.random.split(jax.random.key(0), rows))
    objective = MaskedLM(vocab, {"mask": 0})

    def ours(params: Any, batch: Any, keys: Any) -> jax.Array:
        return objective(nnx.merge(graphdef, params), batch, keys, jnp.int32(0)).total

    def plain(params: Any, batch: Any, keys: Any) -> jax.Array:
        return plain_total(objective, nnx.merge(graphdef, params), batch, keys)

    taken = [
        jax.jit(jax.grad(function)).lower(params, abstract, keys).compile().memory_analysis().temp_size_in_bytes
        for function in (ours, plain)
    ]
    assert taken[1] > rows * length * vocab * 4
    assert 3 * taken[0] <= taken[1], taken
