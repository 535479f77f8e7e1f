"""The training step: one division, microbatches, the finite guard, the moving average, several steps per dispatch."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tiny_lm import NextToken, ragged_batches, tiny_model

from lmlab.contracts import LossOutput
from lmlab.optim.optimizers import SGD, AdamW
from lmlab.optim.schedules import Linear
from lmlab.training.randomness import INIT, STEP, row_keys, stream_key
from lmlab.training.state import averaged_params, skipped, skipped_in_a_row
from lmlab.training.step import Recipe, make_init, make_step, many_steps
from tests.later import later

B = 12
RECIPE = Recipe(tiny_model(), NextToken(), SGD(0.3, momentum=0.9), seed=5)


def start(recipe):
    return jax.jit(make_init(recipe))(stream_key(recipe.seed, INIT))


def run(recipe, batches, **options):
    state, metrics = start(recipe), []
    step = jax.jit(make_step(recipe, **options))
    for batch in batches:
        state, measured = step(state, batch)
        metrics.append(measured)
    return state, jax.device_get(metrics)


def assert_close(got, expected, atol=1e-5):
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=atol), got, expected)


def assert_equal(got, expected):
    jax.tree.map(np.testing.assert_array_equal, got, expected)


def gradient_by_rows(recipe, state, batch):
    """The gradient of the mean loss per target, by a Python loop over single rows in float64 sums."""

    def total(params, row, key):
        return NextToken()(recipe.model.bind(params), jax.tree.map(lambda x: x[None], row), key[None], state.step).total

    keys = row_keys(stream_key(recipe.seed, STEP, state.step), jnp.arange(B))
    one = jax.jit(jax.grad(total))
    parts = [jax.device_get(one(state.params, jax.tree.map(lambda x: x[i], batch), keys[i])) for i in range(B)]  # noqa: B023
    return {path: sum(p[path].astype(np.float64) for p in parts) / batch["weights"].sum() for path in parts[0]}


@pytest.mark.parametrize("microbatches", [1, 3, *later([2, 12])])
def test_the_gradient_is_the_mean_over_all_targets_however_the_batch_is_split(microbatches):
    recipe = dataclasses.replace(RECIPE, optimizer=SGD(1.0))
    (batch,) = ragged_batches(1, B)
    before = start(recipe)
    after, _ = run(recipe, [batch], microbatches=microbatches)
    got = {path: before.params[path] - after.params[path] for path in before.params}
    assert_close(got, gradient_by_rows(recipe, before, batch), atol=1e-6)


@pytest.mark.parametrize("microbatches", [2, 3])
def test_metrics_do_not_depend_on_microbatches(microbatches):
    batches = ragged_batches(3, B)
    _, whole = run(RECIPE, batches)
    _, parts = run(RECIPE, batches, microbatches=microbatches)
    assert set(whole[0]) == {"accuracy", "loss", "grad_norm", "learning_rate", "skipped"}
    assert_close(parts, whole, atol=1e-4)
    assert [m["loss"][1] for m in parts] == [b["weights"].sum() for b in batches]


def test_several_steps_per_dispatch_are_single_steps():
    batches = ragged_batches(6, B)
    state, metrics = run(RECIPE, batches)
    together = jax.jit(many_steps(make_step(RECIPE)))
    stacked = jax.tree.map(lambda *leaves: np.stack(leaves), *batches)
    first, m1 = together(start(RECIPE), jax.tree.map(lambda x: x[:3], stacked))
    last, m2 = together(first, jax.tree.map(lambda x: x[3:], stacked))
    assert_close(last, state, atol=1e-6)
    expected = jax.tree.map(lambda *leaves: np.stack(leaves), *metrics)
    assert_close(jax.tree.map(lambda a, b: np.concatenate([a, b]), m1, m2), expected)


class Poisoned(NextToken):
    """A loss that is not finite, or whose gradient alone is not, on rows that start with a marked token."""

    def __init__(self, poison):
        self.poison = poison

    def __call__(self, model, batch, keys, step):
        output = super().__call__(model, batch, keys, step)
        marked = batch["poison"].sum() > 0
        if self.poison == "loss":
            return output._replace(total=jnp.where(marked, jnp.nan, output.total))
        zero = jnp.where(marked, model.scale[...][0] * 0.0, 1.0)
        return output._replace(total=output.total + jnp.where(marked, jnp.sqrt(zero), 0.0))  # √ has no slope at 0


@pytest.mark.parametrize("poison", ["loss", "gradient"])
@pytest.mark.parametrize("microbatches", [3, *later([1])])
def test_a_step_that_is_not_finite_changes_nothing_but_the_counters(poison, microbatches):
    recipe = dataclasses.replace(RECIPE, loss=Poisoned(poison), optimizer=AdamW(0.01), ema=0.9, clip_norm=1.0)
    clean = [{**batch, "poison": np.zeros(B, np.float32)} for batch in ragged_batches(5, B)]
    marked = {**clean[2], "poison": np.eye(B, dtype=np.float32)[4]}
    step = jax.jit(make_step(recipe, microbatches=microbatches))
    state, counts = start(recipe), []
    for batch in (clean[0], marked, marked, clean[1]):
        before = state
        state, metrics = step(state, batch)
        counts.append(
            (int(state.step), int(skipped(state)), int(skipped_in_a_row(state)), float(metrics["skipped"][0]))
        )
        if batch is marked:
            assert_equal(state.params, before.params)
            assert_equal(state.opt_state["update"], before.opt_state["update"])
            assert_equal(state.opt_state["ema"], before.opt_state["ema"])
            assert metrics["loss"] == metrics["grad_norm"] == (0, 0)
        else:
            assert not np.array_equal(state.params["embedding"], before.params["embedding"])
            assert metrics["loss"][1] == batch["weights"].sum()
    assert counts == [(1, 0, 0, 0), (2, 1, 1, 1), (3, 2, 2, 1), (4, 2, 0, 0)]


def test_the_moving_average_is_its_closed_form():
    decay, batches = 0.8, ragged_batches(5, B)
    recipe = dataclasses.replace(RECIPE, ema=decay)
    state, step = start(recipe), jax.jit(make_step(recipe))
    seen = [state.params]
    for batch in batches:
        state, _ = step(state, batch)
        seen.append(state.params)
    weights = [decay**5] + [(1 - decay) * decay ** (5 - t) for t in range(1, 6)]
    expected = jax.tree.map(
        lambda *leaves: sum(w * np.float64(leaf) for w, leaf in zip(weights, leaves, strict=True)), *seen
    )
    assert_close(averaged_params(state), expected, atol=1e-6)


def test_without_an_average_the_parameters_themselves_are_evaluated():
    state = start(RECIPE)
    assert averaged_params(state) is state.params


@pytest.mark.parametrize(("limit", "factor"), [(0.01, "scaled"), (1e6, "whole")])
def test_the_gradient_is_scaled_down_to_the_norm_and_never_up(limit, factor):
    (batch,) = ragged_batches(1, B)
    recipe = dataclasses.replace(RECIPE, optimizer=SGD(1.0), clip_norm=limit)
    before = start(recipe)
    after, metrics = run(recipe, [batch])
    moved = np.sqrt(sum(np.sum(np.square(before.params[p] - after.params[p])) for p in before.params))
    norm = metrics[0]["grad_norm"][0]
    assert moved == pytest.approx(limit if factor == "scaled" else norm, rel=1e-3)
    assert norm > 0.01


def test_a_batch_without_targets_moves_nothing_and_is_no_failure():
    (batch,) = ragged_batches(1, B)
    recipe = dataclasses.replace(RECIPE, optimizer=SGD(1.0))
    state, metrics = run(recipe, [{**batch, "weights": np.zeros_like(batch["weights"])}])
    assert_equal(state.params, start(recipe).params)
    assert (int(skipped(state)), metrics[0]["loss"]) == (0, (0, 0))


def test_the_learning_rate_is_reported_and_follows_the_step_also_over_skipped_ones():
    recipe = dataclasses.replace(RECIPE, optimizer=SGD(Linear(5, 1.0)), loss=Poisoned("loss"))
    marks = [0.0, 1.0, 0.0]
    batches = [{**b, "poison": np.full(B, m, np.float32)} for b, m in zip(ragged_batches(3, B), marks, strict=True)]
    _, metrics = run(recipe, batches)
    assert [m["learning_rate"] for m in metrics] == [(1.0, 1.0), (0.0, 0.0), (0.5, 1.0)]


def test_parameters_and_gradients_are_float32_when_computing_in_bfloat16():
    seen = []

    class Watched(SGD):
        def transformation(self, roles):
            rule = super().transformation(roles)

            def update(gradients, *args, **extra):
                seen.extend(leaf.dtype for leaf in jax.tree.leaves(gradients))
                return rule.update(gradients, *args, **extra)

            return rule._replace(update=update)

    batches = ragged_batches(3, B)
    recipe = dataclasses.replace(RECIPE, model=tiny_model(dtype=jnp.bfloat16), optimizer=Watched(0.3))
    state, low = run(recipe, batches, microbatches=2)
    _, full = run(dataclasses.replace(RECIPE, optimizer=SGD(0.3)), batches)
    assert {leaf.dtype for leaf in state.params.values()} | set(seen) == {jnp.dtype("float32")}
    losses = [[m["loss"][0] / m["loss"][1] for m in metrics] for metrics in (low, full)]
    np.testing.assert_allclose(*losses, rtol=0.02)
    assert losses[0] != losses[1]


def test_the_initial_state_can_be_donated_though_the_average_starts_as_the_parameters():
    recipe = dataclasses.replace(RECIPE, ema=0.9)
    (batch,) = ragged_batches(1, B)
    state, _ = jax.jit(make_step(recipe), donate_argnums=0)(start(recipe), batch)
    assert int(state.step) == 1


def test_a_population_of_runs_is_each_run_alone():
    (batch,) = ragged_batches(1, B)
    seeds, rates, drops, limits = [3, 4], [0.1, 0.7], [0.0, 0.5], [0.1, 5.0]

    def member(seed, rate, drop, limit):
        # Built inside the traced function: every number is a tracer.
        recipe = Recipe(tiny_model(dropout=drop), NextToken(), AdamW(rate), seed, limit, 0.9)
        return make_step(recipe)(make_init(recipe)(stream_key(seed, INIT)), batch)

    members = (seeds, rates, drops, limits)
    together = jax.jit(jax.vmap(member))(*map(jnp.array, members))
    for i, numbers in enumerate(zip(*members, strict=True)):
        assert_close(jax.tree.map(lambda leaf: leaf[i], together), jax.jit(member)(*numbers))  # noqa: B023


@pytest.mark.parametrize("microbatches", [1, 3])
def test_the_loss_is_traced_once(microbatches):
    traces = []

    class Counted(NextToken):
        def __call__(self, model, batch, keys, step):
            traces.append(1)
            return super().__call__(model, batch, keys, step)

    run(dataclasses.replace(RECIPE, loss=Counted()), ragged_batches(4, B), microbatches=microbatches)
    assert len(traces) == 1


def test_metrics_of_the_loss_are_summed_in_float32():
    class Coarse(NextToken):
        def __call__(self, model, batch, keys, step):
            output = super().__call__(model, batch, keys, step)
            count = jnp.bfloat16(257.0 / B) * batch["tokens"].shape[0]
            return LossOutput(output.total, output.weight, {"count": (count, jnp.int32(1))})

    _, metrics = run(dataclasses.replace(RECIPE, loss=Coarse()), ragged_batches(1, B), microbatches=12)
    assert {leaf.dtype for leaf in jax.tree.leaves(metrics)} == {np.dtype("float32")}
    assert metrics[0]["count"][1] == 12
