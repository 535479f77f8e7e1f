"""Skip-gram and CBOW: against a loop in float64, the laws of what is drawn, and the optimum that is known exactly."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from scipy import stats

from lmlab.errors import DataError
from lmlab.losses.negative_sampling import Drawn, NegativeSampling
from lmlab.models.word2vec import Word2Vec
from lmlab.nn.functional import ModelDef
from lmlab.registry import REGISTRIES
from lmlab.testing.tiny import Tiny

B, T, V, D, END = 5, 13, 7, 3, 0
COUNTS = np.array([11, 400, 100, 50, 25, 5, 0])
RANDOM = np.random.default_rng(0)


def made(counts: np.ndarray = COUNTS, **given: Any) -> NegativeSampling:
    return NegativeSampling(len(counts), {"end_of_text": END}, lambda: counts, **given)


def batch_of(targets: np.ndarray, **given: Any) -> dict[str, Any]:
    weights = given.pop("weights", np.ones(targets.shape, np.float32))
    return {"tokens": np.zeros_like(targets), "targets": targets, "weights": weights, **given}


@pytest.mark.parametrize("given", [{}, {"shared": True}, {"context": "cbow"}], ids=str)
def test_sums_are_those_of_a_loop_over_the_pairs(given: dict[str, Any]) -> None:
    k, window = 3, 2
    loss = made(window=window, negatives=k, subsample=None, **given)
    model = ModelDef.of(lambda rngs: Word2Vec(V, jnp.float32, rngs, width=D))
    table = {path: RANDOM.normal(size=(V, D)).astype(np.float32) for path in model.shapes}
    params = jax.tree.map(jnp.asarray, table)
    batch = batch_of(RANDOM.integers(0, V, (B, T)), weights=(RANDOM.random((B, T)) < 0.8).astype(np.float32))
    keys = jax.random.split(jax.random.key(1), B)
    drawn, (nats, noise, weight) = jax.jit(lambda: (d := loss.drawn(batch, keys), loss.sums(model.bind(params), d)))()
    drawn = Drawn(*map(np.asarray, drawn))
    x, y = (table[f"{name}/embedding"].astype(np.float64) for name in ("embedding", "context"))
    found, told, count = 0.0, 0.0, 0
    for b, i in np.ndindex(B, T):
        near = np.flatnonzero(drawn.pairs[b, i])
        if not len(near):
            continue
        around = drawn.words[b, near]
        if loss.context == "cbow":
            pairs = [(x[around].mean(0), y[drawn.words[b, i]])]
        else:
            pairs = [(x[drawn.words[b, i]], y[word]) for word in around]
        for place, (one, other) in enumerate(pairs):
            found += np.log1p(np.exp(-one @ other))
            first = 0 if loss.shared else k * place
            told += sum(np.log1p(np.exp(one @ y[word])) for word in drawn.noise[b, i, first : first + k])
        count += len(pairs)
    assert count == float(weight) > 30
    np.testing.assert_allclose((nats, noise), (found, told), rtol=1e-5)


def test_words_are_paired_within_windows_and_documents_only() -> None:
    targets = RANDOM.integers(0, V, (B, T))
    there = np.arange(T) < np.array([[T], [T - 3], [4], [1], [T]])
    segments = np.where(np.arange(T) < 6, 1, 2) * there
    batch = batch_of(targets, weights=there.astype(np.float32), segment_ids=segments.astype(np.int32))
    loss = made(window=4, subsample=None)
    words, kept, pairs, noise = map(np.asarray, jax.jit(loss.drawn)(batch, jax.random.split(jax.random.key(2), B)))
    sizes = set()
    for b in range(B):
        wanted, document, number = [], [], 0
        for t in range(T):
            number += t > 0 and segments[b, t] != segments[b, t - 1]
            if there[b, t] and targets[b, t] == END:
                number += 1
            elif there[b, t]:
                wanted.append(targets[b, t])
                document.append(number)
        assert words[b, : kept[b]].tolist() == wanted
        for i in range(T):
            near = np.flatnonzero(pairs[b, i])
            if i >= kept[b]:
                assert not len(near)
                continue
            mates = [j for j in range(kept[b]) if document[j] == document[i] and j != i]
            radius = max(map(abs, near - i), default=0)
            assert near.tolist() == [j for j in mates if abs(j - i) <= radius] and radius <= 4
            sizes.add(radius)
    assert {1, 2, 3} <= sizes
    assert not {END, 6} & set(noise.ravel())  # what ends documents, and what does not occur


def test_frequencies_of_what_is_drawn() -> None:
    rows, time = 300, 60
    probabilities = COUNTS[1:] / COUNTS[1:].sum()
    targets = np.random.default_rng(3).choice(np.arange(1, V), p=probabilities, size=(rows, time))
    loss = made(window=4, negatives=2, subsample=0.05, power=0.75)
    words, kept, pairs, noise = map(
        np.asarray, jax.jit(loss.drawn)(batch_of(targets), jax.random.split(jax.random.key(4), rows))
    )
    q = COUNTS[1:6] ** 0.75
    assert stats.chisquare(np.bincount(noise.ravel(), minlength=V)[1:6], q / q.sum() * noise.size).pvalue > 1e-3
    # The authors' code keeps a word of relative frequency f with probability (sqrt(f / t) + 1) t / f.
    f = COUNTS[1:6] / COUNTS[1:].sum()
    keep = np.minimum((np.sqrt(f / 0.05) + 1) * 0.05 / f, 1)
    assert (keep < 1).sum() == 2
    occurred = np.bincount(targets.ravel(), minlength=V)[1:6]
    left = np.bincount(np.concatenate([words[b, : kept[b]] for b in range(rows)]), minlength=V)[1:6]
    assert (left[keep == 1] == occurred[keep == 1]).all()
    spread = np.sqrt(np.maximum(occurred * keep * (1 - keep), 1))
    assert (abs(left - occurred * keep) / spread < 4).all()
    # The radius of a word is uniform in 1 ... 4: to be seen where a row goes on that far on one side.
    radius = [pairs[b, i].nonzero()[0].max() - i for b in range(rows) for i in range(0, kept[b] - 4, 5)]
    assert stats.chisquare(np.bincount(radius, minlength=5)[1:]).pvalue > 1e-3


def test_the_optimum_of_skip_gram_is_the_shifted_mutual_information() -> None:
    k, size = 2, 5
    joint = np.random.default_rng(5).integers(5, 40, (size, size)) + np.diag([60] * size)
    rows = np.repeat(np.array(list(np.ndindex(size, size))) + 1, joint.ravel(), axis=0)  # the id 0 ends documents
    counts = np.bincount(rows.ravel(), minlength=size + 1)
    loss = made(counts, window=1, negatives=k, subsample=None)
    model = ModelDef.of(lambda rngs: Word2Vec(size + 1, jnp.float32, rngs, width=size))
    batch, steps = jax.tree.map(jnp.asarray, batch_of(rows)), 300
    rule = optax.adam(lambda step: 0.1 * (1 - step / steps))

    def step(state: Any, number: jax.Array) -> tuple[Any, None]:
        params, moments = state
        keys = jax.random.split(jax.random.fold_in(jax.random.key(6), number), len(rows))

        def mean(params: Any) -> jax.Array:
            output = loss(model.bind(params), batch, keys, number)
            return output.total / output.weight

        updates, moments = rule.update(jax.grad(mean)(params), moments)
        return (optax.apply_updates(params, updates), moments), None

    @jax.jit
    def trained(key: jax.Array) -> Any:
        params = model.init(key)
        first = loss(model.bind(params), batch, None, jnp.int32(0))
        return jax.lax.scan(step, (params, rule.init(params)), jnp.arange(steps))[0][0], first

    params, first = trained(jax.random.key(7))
    assert float(first.total / first.weight) == pytest.approx((1 + k) * np.log(2))  # contexts start at zero
    pairs = joint + joint.T
    q = counts[1:] ** 0.75
    wanted = np.log(pairs / pairs.sum(1, keepdims=True) / (q / q.sum())) - np.log(k)
    found = (params["embedding/embedding"] @ params["context/embedding"].T)[1:, 1:]
    assert np.ptp(wanted) > 2
    np.testing.assert_allclose(found, wanted, atol=0.1)


def test_counts_are_those_of_the_training_targets_and_wait_until_they_are_asked_for(tmp_path) -> None:
    tiny = Tiny(REGISTRIES["loss"].entry("negative_sampling"), tmp_path)
    tokens = {"dataset": "@token_file"}
    endless = {"dataset": "@hmm_source"}
    for settings in (tokens, endless):
        program = tiny.program(**settings)
        assert "target_counts" not in vars(program.data)
        counts = program.loss.counts()
        assert counts.shape == (program.data.vocab,)
        if settings is tokens:
            batches = program.data.train.rows_per_epoch // 16
            seen = [program.data.train.batch(k)["targets"] for k in range(batches)]
            missing = counts - np.bincount(np.concatenate(seen).ravel(), minlength=11)
            assert (missing >= 0).all() and missing.sum() == program.data.train.rows_per_epoch % 16 * 7


def test_a_split_without_words_is_refused() -> None:
    loss = made(np.array([7, 0, 0]))
    with pytest.raises(DataError, match="there is no word to be predicted"):
        loss.drawn(batch_of(np.zeros((1, 2), int)), jax.random.split(jax.random.key(0), 1))
