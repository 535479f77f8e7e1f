"""Several updates in one step: against a loop written out by hand, and by the laws that all training keeps."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tiny_lm import NextToken, ragged_batches, tiny_model

from lmlab.errors import ConfigError
from lmlab.optim.optimizers import SGD, AdamW
from lmlab.registry import REGISTRIES
from lmlab.testing import of_runs
from lmlab.testing.tiny import Tiny
from lmlab.training.program import Program
from lmlab.training.randomness import INIT, stream_key
from lmlab.training.state import averaged_params, skipped, skipped_in_a_row
from lmlab.training.step import Recipe, make_init, make_step
from lmlab.training.updates import Part
from tests.later import later

B, LR = 12, 0.1
MODEL = tiny_model(dropout=0.0)
UP, REST = ("up/kernel", "up/bias"), ("embedding", "scale")  # `down` stays as it is


class Halved(NextToken):
    """Another loss: the same at half the weight of every odd target."""

    def __call__(self, model, batch, keys, step):
        odd = batch["targets"] % 2 == 1
        return super().__call__(model, {**batch, "weights": batch["weights"] * jnp.where(odd, 0.5, 1.0)}, keys, step)


SLOW = Part("slow", Halved(), AdamW(0.01, weight_decay=0.0), REST, every=3, begin=1, end=8)
FAST = Part("fast", NextToken(), SGD(LR, momentum=0.9), UP, repeats=2)
RECIPE = Recipe(MODEL, NextToken(), SGD(1.0), seed=5, clip_norm=0.4, parts=(FAST, SLOW))


def start(recipe):
    return jax.jit(make_init(recipe))(stream_key(recipe.seed, INIT))


def run(recipe, batches, **options):
    state, metrics = start(recipe), []
    step = jax.jit(make_step(recipe, **options))
    for batch in batches:
        state, measured = step(state, batch)
        metrics.append(jax.device_get(measured))
    return state, metrics


def assert_close(found, expected, atol=1e-5):
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=atol), found, expected)


def clipped_gradient(loss, params, paths, batch):
    """The clipped gradient of the mean loss in some of the parameters, float64."""

    def mean(own):
        output = loss(MODEL.bind({**params, **own}), batch, None, jnp.int32(0))
        return output.total / output.weight

    found = jax.device_get(jax.grad(mean)({path: jnp.float32(params[path]) for path in paths}))
    norm = np.sqrt(sum(np.sum(np.float64(g) ** 2) for g in found.values()))
    return {path: np.float64(g) * min(1.0, 0.4 / norm) for path, g in found.items()}


def by_hand(batches):
    """SGD with momentum twice a step, and Adam in every third step from the second to the eighth."""
    params = {path: np.asarray(value) for path, value in start(RECIPE).params.items()}
    velocity = dict.fromkeys(UP, 0.0)
    moments = dict.fromkeys(REST, (0.0, 0.0))
    updates = 0
    for number, batch in enumerate(batches):
        for _ in range(2):
            for path, g in clipped_gradient(NextToken(), params, UP, batch).items():
                velocity[path] = 0.9 * velocity[path] + g
                params[path] = np.float32(params[path] - LR * velocity[path])
        if number in (2, 5):
            updates += 1
            for path, g in clipped_gradient(Halved(), params, REST, batch).items():
                m, v = moments[path]
                m, v = 0.9 * m + 0.1 * g, 0.95 * v + 0.05 * g**2
                moments[path] = m, v
                change = m / (1 - 0.9**updates) / (np.sqrt(v / (1 - 0.95**updates)) + 1e-8)
                params[path] = np.float32(params[path] - 0.01 * change)
    return params


def test_a_step_makes_its_updates_one_after_the_other():
    batches = ragged_batches(9, B)
    state, metrics = run(RECIPE, batches)
    expected = by_hand(batches)
    assert_close(state.params, expected)
    first = start(RECIPE).params
    for path in ("down/kernel", "down/bias"):
        np.testing.assert_array_equal(state.params[path], first[path])
    made = [m["slow/loss"][1] for m in metrics]
    assert [number for number, weight in enumerate(made) if weight] == [2, 5]
    assert [m["fast/loss"][1] for m in metrics] == [2 * b["weights"].sum() for b in batches]
    assert set(state.opt_state["update"]) == {"fast", "slow"}


@pytest.mark.parametrize("microbatches", [3])
def test_several_updates_do_not_depend_on_microbatches(microbatches):
    recipe, batches = dataclasses.replace(RECIPE, model=tiny_model()), ragged_batches(4, B)  # with dropout
    whole, parts = run(recipe, batches), run(recipe, batches, microbatches=microbatches)
    assert_close(parts, whole, atol=1e-4)


def test_a_repeated_update_draws_anew_each_time():
    batch = ragged_batches(1, B)
    drops = {"model": tiny_model(dropout=0.5), "clip_norm": None}
    once, twice = (
        dataclasses.replace(RECIPE, parts=(dataclasses.replace(FAST, optimizer=SGD(0.0), repeats=n),), **drops)
        for n in (1, 2)
    )
    one, two = (run(recipe, batch)[1][0]["fast/loss"][0] for recipe in (once, twice))
    assert abs(two - 2 * one) > 1e-3  # the parameters stay, so that only the masks can differ


class Poisoned(NextToken):
    """Not finite where a batch is marked."""

    def __call__(self, model, batch, keys, step):
        output = super().__call__(model, batch, keys, step)
        return output._replace(total=jnp.where(batch["poison"].sum() > 0, jnp.nan, output.total))


def test_the_guard_skips_an_update_alone_and_counts_the_steps():
    slow = dataclasses.replace(SLOW, loss=Poisoned(), every=1, begin=0, end=None)
    recipe = dataclasses.replace(RECIPE, parts=(FAST, slow), ema=0.5)
    (batch,) = ragged_batches(1, B)
    step, state, counts = jax.jit(make_step(recipe)), start(recipe), []
    for poison in (0.0, 1.0, 1.0, 0.0):
        before = state
        state, metrics = step(state, {**batch, "poison": np.full(B, poison, np.float32)})
        counts.append((int(skipped(state)), int(skipped_in_a_row(state)), float(metrics["skipped"][0])))
        moved = {path for path in state.params if not np.array_equal(state.params[path], before.params[path])}
        assert moved == (set(UP) if poison else {*UP, *REST})
        averages = averaged_params(state), averaged_params(before)
        assert np.array_equal(averages[0]["up/kernel"], averages[1]["up/kernel"]) == bool(poison)
        assert (metrics["slow/loss"] == (0, 0)) == bool(poison)
    assert counts == [(0, 0, 0), (1, 1, 1), (2, 2, 1), (2, 0, 0)]


class TwoUpdates(Tiny):
    """A tiny experiment whose step trains the head twice and the rest once, with dropout."""

    def resolved(self, **experiment: Any) -> Any:
        updates = {
            "updates": "[@a/update, @b/update]",
            "a/update.name": "head",
            "a/update.parameters": "['^head/']",
            "a/update.repeats": 2,
            "b/update.name": "body",
            "b/update.parameters": "['^blocks/', '^embedding/']",
            "b/update.every": 2,
            "b/update.optimizer": "@sgd",
            "sgd.learning_rate": 0.1,
        }
        return super().resolved(**{**updates, **experiment})


@pytest.mark.parametrize(
    "law", [of_runs.goes_on_where_it_stopped, *later([of_runs.microbatches_change_nothing, of_runs.layouts_agree])]
)
def test_several_updates_keep_the_laws_of_training(law, tmp_path):
    law(TwoUpdates(REGISTRIES["model"].entry("lstm"), tmp_path))


def test_configurations_that_cannot_be_are_refused(tmp_path):
    tiny = TwoUpdates(REGISTRIES["model"].entry("lstm"), tmp_path)
    for wrong, message in [
        ({"b/update.name": "head"}, "'head' stands twice"),
        ({"b/update.name": "a/b"}, "is no name of letters"),
        ({"b/update.parameters": "['^decoder/']"}, r"no parameter's path has '\^decoder/' in it"),
        ({"b/update.parameters": "['(']"}, "is no regular expression"),
        ({"b/update.begin": 3, "b/update.end": 3}, "would never be made"),
    ]:
        with pytest.raises(ConfigError, match=message):
            Program(tiny.resolved(**wrong))


def test_a_model_that_counts_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="'ngram' counts, which is one update"):
        Program(Tiny(REGISTRIES["model"].entry("ngram"), tmp_path).resolved(updates="[@update]"))
