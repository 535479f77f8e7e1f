"""n-gram models against counts in dictionaries, and against the counter that Brown's baseline is measured with."""

from __future__ import annotations

import functools
import importlib.util
import itertools
from collections import Counter
from pathlib import Path
from types import ModuleType
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lmlab.config import resolve
from lmlab.errors import ConfigError
from lmlab.losses.autoregressive import Autoregressive
from lmlab.models.ngram import NGram
from lmlab.nn.functional import ModelDef
from lmlab.training.fit import check_experiment

V, N, T = 19, 3, 401
STREAM = np.minimum(np.random.default_rng(1).zipf(1.6, T), V - 1) - 1  # the last id never occurs
STREAM[1:-1:3] = np.where(STREAM[1:-1:3] < 3, (STREAM[:-2:3] + 1) % 5, STREAM[1:-1:3])  # contexts tell something
TRAIN = 301
CONTEXTS = np.array(list(itertools.product(range(V + 1), repeat=N - 1)))
"""All contexts that there can be, the mark before the first token included."""


def model(**given: Any) -> ModelDef[NGram]:
    return ModelDef.of(lambda rngs: NGram(V, 2000, **{"order": N, **given}))


def batch(ids: np.ndarray, rows: int = 1) -> dict[str, jax.Array]:
    """The stream as a batch of so many rows; the first token is predicted too, from an id that is never read."""
    ids = ids[: len(ids) // rows * rows].reshape(rows, -1)
    return {
        "tokens": jnp.asarray(ids[:, :-1]),
        "targets": jnp.asarray(ids[:, 1:]),
        "weights": jnp.ones(ids[:, 1:].shape),
    }


def counted(definition: ModelDef[NGram], *batches: dict[str, jax.Array]) -> dict[str, jax.Array]:
    count = jax.jit(lambda params, batch: definition.bind(params).count(batch))
    params = definition.init(jax.random.key(0))
    for one in batches:
        params = count(params, one)
    return params


def probabilities(definition: ModelDef[NGram], params: dict[str, jax.Array], contexts: np.ndarray) -> np.ndarray:
    project = jax.jit(lambda params, contexts: definition.bind(params).project(contexts))
    return np.exp(np.asarray(project(params, jnp.asarray(contexts)), np.float64))


class Dictionaries:
    """The same models by definition, one n-gram at a time, float64."""

    def __init__(self, sequences: list[list[int]], smoothing: str, add: float = 0.0) -> None:
        self.smoothing, self.add = smoothing, add
        grams = [
            tuple(([V] * (N - 1) + sequence)[t : t + N]) for sequence in sequences for t in range(1, len(sequence))
        ]
        self.counts = [Counter(gram[N - m :] for gram in grams) for m in range(1, N + 1)]
        if smoothing != "add":
            for m in range(N - 1, 0, -1):
                self.counts[m - 1] = Counter(gram[1:] for gram in self.counts[m])

        self.after: list[dict[tuple[int, ...], dict[int, int]]] = [{} for _ in self.counts]
        for after, counts in zip(self.after, self.counts, strict=True):
            for gram, count in counts.items():
                after.setdefault(gram[:-1], {})[gram[-1]] = count

    @functools.cache  # noqa: B019
    def discount(self, m: int, count: int) -> float:
        n = Counter(self.counts[m - 1].values())
        y = n[1] / (n[1] + 2 * n[2])
        if self.smoothing == "kneser_ney":
            assert n[1], "too few n-grams for the estimate"
            return y
        estimates = [k - (k + 1) * y * n[k + 1] / n[k] if n[k] else 0 for k in (1, 2, 3)]
        if not all(0 < estimate <= k for k, estimate in enumerate(estimates, 1)):
            assert m == 1, "too few n-grams for the estimates"
            estimates = [0.5, 1, 1.5]
        return estimates[min(count, 3) - 1]

    def p(self, token: int, context: tuple[int, ...], m: int = N) -> float:
        if m == 0:
            return 1 / V
        context = context[len(context) - m + 1 :]
        after = self.after[m - 1].get(context, {})
        total = sum(after.values())
        if self.smoothing == "add":
            if total + self.add == 0:
                return self.p(token, context, m - 1)
            return (after.get(token, 0) + self.add) / (total + self.add * V)
        if not total:
            return self.p(token, context, m - 1)
        own = max(after[token] - self.discount(m, after[token]), 0) if token in after else 0
        left = sum(self.discount(m, count) for count in after.values())
        return (own + left * self.p(token, context, m - 1)) / total


@pytest.mark.parametrize(
    ("smoothing", "add"), [("kneser_ney", 0.0), ("modified_kneser_ney", 0.0), ("add", 0.1), ("add", 0.0)]
)
def test_probabilities_are_those_of_the_definition_and_sum_to_one(smoothing: str, add: float) -> None:
    definition = model(smoothing=smoothing, add=add)
    halves = [batch(STREAM[:200], 4), batch(STREAM[200:], 3)]  # two steps, of rows with a beginning each
    found = probabilities(definition, counted(definition, *halves), CONTEXTS)
    np.testing.assert_allclose(found.sum(1), 1, atol=1e-5)
    rows = [
        row.tolist()
        for part, k in ((STREAM[:200], 4), (STREAM[200:], 3))
        for row in np.split(part[: len(part) // k * k], k)
    ]
    reference = Dictionaries(rows, smoothing, add)
    expected = [[reference.p(token, tuple(context)) for token in range(V)] for context in CONTEXTS.tolist()]
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-7)


def test_perplexity_is_that_of_the_independent_counter() -> None:
    definition = model(smoothing="kneser_ney")
    # The mark before the first token is read, so that all tokens of the stream are predicted.
    tokens = np.concatenate([[V], STREAM])
    params = counted(definition, batch(tokens[: TRAIN + 1]))
    states = jax.jit(lambda tokens: definition.bind(params).hidden(tokens)[0])(tokens[None, :-1])[0, TRAIN:]
    p = probabilities(definition, params, np.asarray(states))[np.arange(T - TRAIN), STREAM[TRAIN:]]
    expected = baseline().perplexity(STREAM, slice(0, TRAIN), slice(TRAIN, T), V, N)
    np.testing.assert_allclose(np.exp(-np.log(p).mean()), expected, rtol=1e-5)


def baseline() -> ModuleType:
    spec = importlib.util.spec_from_file_location(
        "kneser_ney", Path(__file__).parents[2] / "experiments/papers/neural_ngram/kneser_ney.py"
    )
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_tables_do_not_depend_on_how_the_rows_are_batched() -> None:
    whole = batch(STREAM, 8)
    parts = [{name: value[k : k + 2] for name, value in whole.items()} for k in (6, 0, 4, 2)]
    one, other = counted(model(), whole), counted(model(), *parts)
    assert all(jnp.array_equal(one[path], other[path]) for path in one)
    assert one["tables/2/counts"].sum() == whole["weights"].sum()


def test_only_weighted_targets_count_and_documents_begin_anew() -> None:
    row = {"tokens": [[1, 2, 3, 4, 0]], "targets": [[2, 3, 9, 5, 0]], "weights": [[1.0, 1, 0, 1, 0]],
           "segment_ids": [[1, 1, 1, 2, 0]]}  # fmt: skip
    params = counted(model(smoothing="add"), {name: jnp.asarray(value) for name, value in row.items()})
    used = np.asarray(params["tables/2/counts"]) > 0
    assert np.asarray(params["tables/2/grams"])[used].tolist() == [[1, 2, 3], [V, 1, 2], [V, 4, 5]]


def test_nothing_counted_is_a_uniform_law_and_a_full_table_loses_nothing() -> None:
    definition = ModelDef.of(lambda rngs: NGram(V, 5, order=N, smoothing="kneser_ney"))
    np.testing.assert_allclose(
        probabilities(definition, definition.init(jax.random.key(0)), CONTEXTS), 1 / V, rtol=1e-6
    )
    params = counted(definition, batch(np.array([0, 1, 2, 3, 4, 5])))
    assert params["tables/2/counts"].tolist() == params["tables/0/counts"].tolist()[:5] == [1, 1, 1, 1, 1]
    found = probabilities(definition, params, CONTEXTS)
    np.testing.assert_allclose(found.sum(1), 1, atol=1e-5)
    assert (found > 0).all()


def test_the_loss_is_that_of_any_model() -> None:
    definition = model()
    params, held_out = counted(definition, batch(STREAM[:TRAIN])), batch(STREAM[TRAIN:])
    loss = jax.jit(lambda params: Autoregressive(chunk=13)(definition.bind(params), held_out, None, jnp.int32(0)))
    output = loss(params)
    reference = Dictionaries([STREAM[:TRAIN].tolist()], "modified_kneser_ney")
    rest = [V, *STREAM[TRAIN:].tolist()]
    nats = -sum(np.log(reference.p(rest[t], tuple(rest[t - 2 : t]))) for t in range(2, len(rest)))
    np.testing.assert_allclose(output.metrics["nats"][0], nats, rtol=1e-5)


@pytest.mark.parametrize(
    ("model_name", "loss", "optimizer", "message"),
    [
        ("ngram", "autoregressive", "sgd", "experiment.optimizer = @counting"),
        ("lstm", "autoregressive", "counting", "does not count"),
        ("ngram", "autoregressive", "counting", "experiment.ema"),
    ],
)
def test_counting_and_learning_are_not_mixed(model_name: str, loss: str, optimizer: str, message: str) -> None:
    lines = f"""
    experiment.model = @{model_name}
    experiment.loss = @{loss}
    experiment.dataset = @hmm_source
    experiment.optimizer = @{optimizer}
    experiment.steps = 1
    experiment.global_batch_size = 1
    experiment.seq_len = 64
    {"sgd.learning_rate = 0.1" if optimizer == "sgd" else ""}
    {"experiment.ema = 0.9" if "ema" in message else ""}
    """
    with pytest.raises(ConfigError, match=message):
        check_experiment(resolve([], [lines]).build())
