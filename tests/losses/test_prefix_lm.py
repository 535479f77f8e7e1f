"""Going on with a prefix: who sees whom, what is predicted, and where documents are divided."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lmlab.losses.autoregressive import Autoregressive
from lmlab.losses.prefix_lm import PrefixLanguageModelling, divided
from lmlab.models.gpt import GPT
from lmlab.nn.functional import ModelDef, Params
from lmlab.nn.randomness import content_keys
from tests.drawn import drawn

B, T, V = 3, 11, 13
STEP = jnp.int32(0)


@pytest.fixture(scope="module")
def model() -> ModelDef[GPT]:
    return ModelDef.of(
        lambda rngs: GPT(V, T, jnp.float32, rngs, width=8, heads=2, layers=2, positions="rotary", init_std=0.5)
    )


@pytest.fixture(scope="module")
def params(model: ModelDef[GPT]) -> Params:
    return drawn(model, 3, std=0.5)


def rows() -> dict[str, jax.Array]:
    """Two documents in each row: one predicted from its first token on, and a pair whose target has weights."""
    drawn = np.random.default_rng(5)
    fields = {
        "tokens": drawn.integers(0, V, (B, T)),
        "targets": drawn.integers(0, V, (B, T)),
        "weights": np.array([[1, 1, 1, 1, 0, 0, 0, 1, 1, 0, 0]] * B, np.float32),
        "segment_ids": np.array([[1, 1, 1, 1, 2, 2, 2, 2, 2, 2, 0]] * B),
    }
    return jax.tree.map(jnp.asarray, fields)


def by_hand(weights: np.ndarray, segments: np.ndarray, prefix: np.ndarray) -> tuple[list[int], np.ndarray]:
    """The lengths of the prefixes of a row's documents, which must be beginnings, and the weights behind them."""
    lengths, kept = [], weights.copy()
    for document in sorted(set(segments.tolist()) - {0}):
        places = np.flatnonzero(segments == document)
        length = int(prefix[places].sum())
        assert prefix[places[:length]].all(), "a prefix is not the beginning of its document"
        kept[places[: length - 1]] = 0
        lengths.append(length)
    return lengths, kept


def test_the_loss_is_the_cross_entropy_behind_the_prefix(model: ModelDef[GPT], params: Params) -> None:
    batch = rows()

    @jax.jit
    def measure(params: Params):
        bound = model.bind(params)
        output = PrefixLanguageModelling()(bound, batch, None, STEP)
        reads = []
        for lengths in range(1, 5):  # the logits for every division of the first document
            places = jnp.arange(T)
            prefix = jnp.where(batch["segment_ids"] == 1, places < lengths, places < 8)
            states, _ = bound.hidden_with_prefix(batch["tokens"], prefix, segment_ids=batch["segment_ids"])
            reads.append(bound.project(states))
        return output, jnp.stack(reads)

    output, reads = jax.device_get(measure(params))
    prefix, _ = divided(batch["weights"], batch["segment_ids"], content_keys(batch["tokens"]))
    total = weight = 0.0
    for b in range(B):
        weights, segments = np.asarray(batch["weights"][b]), np.asarray(batch["segment_ids"][b])
        (first, second), kept = by_hand(weights, segments, np.asarray(prefix[b]))
        assert 1 <= first <= 4 and second == 4
        logits = reads[first - 1, b].astype(np.float64)
        log_p = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
        total -= (kept * log_p[np.arange(T), np.asarray(batch["targets"][b])]).sum()
        weight += kept.sum()
    np.testing.assert_allclose(output.total, total, rtol=1e-5)
    assert output.weight == weight and output.metrics["nats"][1] == weight


def test_with_a_prefix_of_one_token_it_is_autoregressive(model: ModelDef[GPT], params: Params) -> None:
    """A token sees itself anyway."""
    batch = rows()
    given = {**batch, "weights": batch["weights"].at[:, :4].set(jnp.array([0.0, 0, 0, 1]))}
    single = {**batch, "weights": jnp.zeros((B, T)).at[:, 0].set(1.0)}

    @jax.jit
    def measure(params: Params):
        bound = model.bind(params)
        losses = (PrefixLanguageModelling(), Autoregressive(), PrefixLanguageModelling(chunk=3))
        return [[loss(bound, rows, None, STEP) for loss in losses] for rows in (single, given)]

    (one, causal, pieces), (other, otherwise, again) = measure(params)
    for x, y in zip(jax.tree.leaves((one, other)), jax.tree.leaves((pieces, again)), strict=True):
        np.testing.assert_allclose(x, y, rtol=1e-5)
    np.testing.assert_allclose(one.total, causal.total, rtol=1e-6)
    assert abs(other.total - otherwise.total) > 1e-2  # with a longer prefix it is not


def test_tokens_of_a_prefix_see_each_other_and_no_token_sees_a_target_before_it_is_written(
    model: ModelDef[GPT], params: Params
) -> None:
    prefix = jnp.arange(T) < jnp.array([[5]] * B)
    read = jax.jit(lambda tokens: model.bind(params).hidden_with_prefix(tokens, prefix)[0])
    tokens = rows()["tokens"]

    def touched(place: int) -> np.ndarray:
        """Which states change with the token at a place."""
        changed = tokens.at[:, place].set((tokens[:, place] + 1) % V)
        return np.asarray((read(tokens) != read(changed)).any(-1))

    assert touched(4).all(), "the prefix's last token is seen by all"
    for place in (5, T - 2):
        assert not touched(place)[:, :place].any() and touched(place)[:, place:].all()


def test_documents_are_divided_evenly() -> None:
    """Of a document with W predictions, each beginning of 1 to W tokens is as likely; a pair's text is as it is."""
    many = 4000
    weights, segments = (np.repeat(np.asarray(rows()[name][:1]), many, 0) for name in ("weights", "segment_ids"))
    keys = jax.random.split(jax.random.key(2), many)
    prefix, counted = jax.device_get(jax.jit(divided)(weights, segments, keys))
    lengths = prefix[:, :4].sum(1)
    counts = np.bincount(lengths, minlength=5)[1:]
    error = np.sqrt(many * 1 / 4 * 3 / 4)
    assert counts.shape == (4,) and (abs(counts - many / 4) < 4 * error).all(), counts
    assert (prefix[:, 4:10] == [1, 1, 1, 1, 0, 0]).all()
    predicted = counted & (weights > 0)
    assert (predicted[:, :4].sum(1) == 5 - lengths).all() and (predicted[:, 7:9]).all()
