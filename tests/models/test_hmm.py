"""The hidden Markov model against sums over all paths; Baum-Welch against forward-backward in float64 NumPy."""

from __future__ import annotations

import itertools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from lmlab.config import resolve
from lmlab.errors import ConfigError
from lmlab.losses.autoregressive import Autoregressive
from lmlab.losses.expected_counts import ExpectedCounts
from lmlab.models.hmm import HMM
from lmlab.nn.functional import ModelDef
from lmlab.optim.expectation_maximization import ExpectationMaximization
from lmlab.training.fit import check_experiment
from tests.drawn import drawn

K, V, T, B = 3, 5, 4, 7
MODEL = ModelDef.of(lambda rngs: HMM(V, jnp.float32, rngs, states=K, init_scale=1.3))
PARAMS = drawn(MODEL, 2, std=1.3)
SEQUENCES = np.random.default_rng(3).integers(0, V, (B, T + 1))

Laws = tuple[np.ndarray, np.ndarray, np.ndarray]


def laws(params: dict[str, Any] = PARAMS) -> Laws:
    """Start, transition and emission probabilities, float64."""
    logits = (np.asarray(params[path], np.float64) for path in ("start", "transition", "emission"))
    return tuple(np.exp(x) / np.exp(x).sum(-1, keepdims=True) for x in logits)  # type: ignore[return-value]


def batch(sequences: np.ndarray = SEQUENCES) -> dict[str, jax.Array]:
    tokens, targets = jnp.asarray(sequences[:, :-1]), jnp.asarray(sequences[:, 1:])
    return {"tokens": tokens, "targets": targets, "weights": jnp.ones(tokens.shape)}


def joint(laws: Laws, path: tuple[int, ...], symbols: np.ndarray) -> float:
    """p(path, symbols)."""
    start, transition, emission = laws
    moves = np.prod([transition[i, j] for i, j in itertools.pairwise(path)])
    return float(start[path[0]] * moves * np.prod(emission[list(path), symbols]))


def expected_counts(laws: Laws, sequences: np.ndarray) -> tuple[float, Laws]:
    """The log-likelihood, and how often each parameter is used, by enumeration of all paths."""
    counts = tuple(np.zeros(law.shape) for law in laws)
    nats = 0.0
    for symbols in sequences:
        paths = list(itertools.product(range(K), repeat=len(symbols)))
        weights = np.array([joint(laws, path, symbols) for path in paths])
        nats += np.log(weights.sum())
        for path, share in zip(paths, weights / weights.sum(), strict=True):
            counts[0][path[0]] += share
            for i, j in itertools.pairwise(path):
                counts[1][i, j] += share
            np.add.at(counts[2], (list(path), symbols), share)
    return nats, counts  # type: ignore[return-value]


@jax.jit
def loss_and_gradient(params: dict[str, jax.Array], batch: dict[str, jax.Array]) -> Any:
    def total(params: dict[str, jax.Array]) -> Any:
        output = ExpectedCounts()(MODEL.bind(params), batch, None, jnp.int32(0))
        return output.total, output

    (_, output), gradient = jax.value_and_grad(total, has_aux=True)(params)
    return output, gradient


def test_next_token_probabilities_are_sums_over_all_paths() -> None:
    model = MODEL.bind(PARAMS)
    states = jax.jit(lambda tokens: model.hidden(tokens)[0])(batch()["tokens"])
    log_p = np.asarray(model.project(states))
    for row, symbols in enumerate(SEQUENCES[:, :-1]):
        for t in range(T):
            paths = list(itertools.product(range(K), repeat=t + 1))
            weights = np.array([joint(laws(), path, symbols[: t + 1]) for path in paths])
            last = np.array([path[-1] for path in paths])
            filtered = np.bincount(last, weights, K) / weights.sum()
            np.testing.assert_allclose(states[row, t], filtered, rtol=1e-5)
            np.testing.assert_allclose(log_p[row, t], np.log(filtered @ laws()[1] @ laws()[2]), rtol=1e-5)


def test_the_loss_is_the_likelihood_and_its_gradient_the_expected_counts() -> None:
    output, gradient = loss_and_gradient(PARAMS, batch())
    nats, counts = expected_counts(laws(), SEQUENCES)
    np.testing.assert_allclose(output.total, -nats, rtol=1e-5)
    assert output.weight == B * (T + 1)
    for path, expected in zip(("start", "transition", "emission"), counts, strict=True):
        np.testing.assert_allclose(-gradient[path], expected, rtol=1e-4, atol=1e-5, err_msg=path)
    ordinary = Autoregressive()(MODEL.bind(PARAMS), batch(), None, jnp.int32(0))
    np.testing.assert_allclose(output.metrics["nats"][0], ordinary.metrics["nats"][0], rtol=1e-5)


def test_segments_and_short_rows_are_texts_of_their_own() -> None:
    packed = {**batch(), "segment_ids": jnp.asarray(np.tile([1, 1, 2, 0], (B, 1)))}
    # The first text ends with its second token; the second one with a target behind its only token.
    packed["weights"] = jnp.asarray(np.tile([1.0, 0.0, 1.0, 0.0], (B, 1)))
    output, gradient = loss_and_gradient(PARAMS, packed)
    first, second = expected_counts(laws(), SEQUENCES[:, :2]), expected_counts(laws(), SEQUENCES[:, 2:4])
    np.testing.assert_allclose(output.total, -first[0] - second[0], rtol=1e-5)
    for path, one, other in zip(("start", "transition", "emission"), first[1], second[1], strict=True):
        np.testing.assert_allclose(-gradient[path], one + other, rtol=1e-4, atol=1e-5, err_msg=path)


def test_the_ordinary_gradient_is_that_of_finite_differences() -> None:
    def total(params: dict[str, jax.Array]) -> jax.Array:
        return Autoregressive()(MODEL.bind(params), batch(), None, jnp.int32(0)).total

    def exact(params: dict[str, np.ndarray]) -> float:
        start, transition, emission = laws(params)
        nats = 0.0
        for symbols in SEQUENCES:
            ahead = start
            for t, symbol in enumerate(symbols):
                seen = ahead * emission[:, symbol]
                nats -= np.log(seen.sum()) if t else 0.0
                ahead = seen / seen.sum() @ transition
        return nats

    gradient = jax.jit(jax.grad(total))(PARAMS)
    params = {path: np.asarray(value, np.float64) for path, value in PARAMS.items()}
    for path, value in params.items():
        for place in np.ndindex(value.shape):
            step = np.zeros(value.shape)
            step[place] = 1e-5
            slope = (exact({**params, path: value + step}) - exact({**params, path: value - step})) / 2e-5
            np.testing.assert_allclose(gradient[path][place], slope, rtol=1e-3, atol=2e-4, err_msg=f"{path}{place}")


def steps(optimizer: ExpectationMaximization, batches: list[Any], params: Any = PARAMS) -> tuple[Any, list[float]]:
    """The parameters after one step for each batch, and the nats per token before each."""
    rule, found = optax.with_extra_args_support(optimizer.transformation(MODEL.roles)), []
    state = rule.init(params)
    for number, one in enumerate(batches):
        output, gradient = loss_and_gradient(params, one)
        found.append(float(output.total / output.weight))
        gradient = {path: value / output.weight for path, value in gradient.items()}
        updates, state = rule.update(gradient, state, params, step=jnp.int32(number))
        params = optax.apply_updates(params, updates)
    return params, found


def test_a_step_on_everything_is_one_of_baum_welch() -> None:
    params, _ = steps(ExpectationMaximization(), [batch()])
    for path, counts in zip(("start", "transition", "emission"), expected_counts(laws(), SEQUENCES)[1], strict=True):
        new = counts / counts.sum(-1, keepdims=True)
        np.testing.assert_allclose(np.exp(params[path]), new, rtol=1e-4, atol=1e-6, err_msg=path)


def test_the_likelihood_never_falls() -> None:
    _, nats = steps(ExpectationMaximization(), [batch()] * 60)
    assert all(later <= earlier + 1e-6 for earlier, later in itertools.pairwise(nats))
    assert nats[-1] < nats[0] - 0.1


def test_a_prior_is_so_many_counts_more() -> None:
    scored = B * (T + 1)
    params, _ = steps(ExpectationMaximization(prior=2.0 / scored), [batch()])
    counts = expected_counts(laws(), SEQUENCES)[1][2] + 2
    np.testing.assert_allclose(np.exp(params["emission"]), counts / counts.sum(-1, keepdims=True), rtol=1e-4)


def test_stepwise_em_averages_the_counts_of_its_batches() -> None:
    halves = [batch(SEQUENCES[:4]), batch(SEQUENCES[4:])]
    params, _ = steps(ExpectationMaximization(learning_rate=0.25), halves)
    middle, _ = steps(ExpectationMaximization(learning_rate=0.25), halves[:1])
    one = expected_counts(laws(), SEQUENCES[:4])[1][1] / (4 * (T + 1))
    other = expected_counts(laws(middle), SEQUENCES[4:])[1][1] / (3 * (T + 1))
    counts = (0.75 * 0.25 * one + 0.25 * other) / (1 - 0.75**2)
    np.testing.assert_allclose(
        np.exp(params["transition"]), counts / counts.sum(-1, keepdims=True), rtol=1e-4, atol=1e-6
    )


def test_impossible_symbols_stay_finite() -> None:
    seen = SEQUENCES % 2  # the other symbols get no count
    params, _ = steps(ExpectationMaximization(), [batch(seen)] * 3)
    output, gradient = loss_and_gradient(params, batch())
    assert np.isfinite(output.total) and all(np.isfinite(value).all() for value in gradient.values())


def test_a_long_text_is_stable() -> None:
    long = np.random.default_rng(5).integers(0, V, (1, 3001))
    output, gradient = loss_and_gradient(PARAMS, batch(long))
    start, transition, emission = laws()
    nats, ahead = 0.0, start
    for symbol in long[0]:
        seen = ahead * emission[:, symbol]
        nats -= np.log(seen.sum())
        ahead = seen / seen.sum() @ transition
    np.testing.assert_allclose(output.total, nats, rtol=1e-5)
    np.testing.assert_allclose(-sum(gradient["emission"].ravel()), 3001, rtol=1e-4)


@pytest.mark.parametrize(
    ("loss", "clip", "message"),
    [("autoregressive", "None", "cannot use the gradient"), ("expected_counts", "1.0", "clip_norm = None")],
)
def test_expectation_maximization_refuses_what_makes_no_sense(loss: str, clip: str, message: str) -> None:
    lines = f"""
    experiment.model = @hmm
    experiment.loss = @{loss}
    experiment.dataset = @hmm_source
    experiment.optimizer = @expectation_maximization
    experiment.clip_norm = {clip}
    experiment.steps = 1
    experiment.global_batch_size = 1
    experiment.seq_len = 64
    """
    with pytest.raises(ConfigError, match=message):
        check_experiment(resolve([], [lines]).build())
