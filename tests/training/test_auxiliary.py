"""Terms that a model adds to its loss: divided by the whole batch's weights, heard by the trainer only."""

import dataclasses
import threading

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tiny_lm import NextToken, Rate, TinyLM, ragged_batches

from lmlab.errors import ConfigError
from lmlab.nn.auxiliary import Term, collecting, report
from lmlab.nn.functional import ModelDef
from lmlab.optim.optimizers import SGD
from lmlab.training.cost import matmul_flops
from lmlab.training.randomness import INIT, STEP, row_keys, stream_key
from lmlab.training.state import skipped
from lmlab.training.step import Recipe, make_init, make_step

B = 12


class Charged(TinyLM):
    """Charges the squares of the logits of even ids that were read, per token; and a number, per row, that is 0."""

    def __init__(self, rngs, coefficient=3.0, power=2):
        super().__init__(rngs)
        self.coefficient, self.power = Rate(coefficient), power

    def logits(self, tokens, keys):
        logits = super().logits(tokens, keys)
        even = (tokens % 2 == 0).astype(jnp.float32)
        report("squares", (charge(logits, self.power) * even).sum(), even.sum(), self.coefficient.value)
        report("nothing", logits.sum() * 0, float(len(tokens)), 0.0)
        return logits


def charge(logits, power=2):
    return (logits**power).mean(-1)


def recipe(loss=None, **options):
    return Recipe(ModelDef.of(lambda rngs: Charged(rngs, **options)), loss or NextToken(), SGD(1.0), seed=5)


def start(recipe):
    return jax.jit(make_init(recipe))(stream_key(recipe.seed, INIT))


@pytest.fixture(scope="module")
def by_hand():
    """A ragged batch, the state before it, and the gradient of the mean loss and the mean charge: rows in float64."""
    (batch,) = ragged_batches(1, B)
    one, state = recipe(), start(recipe())
    keys = row_keys(stream_key(one.seed, STEP, 0), jnp.arange(B))

    def sums(params, tokens, row, key):
        model = one.model.bind(params)
        even = tokens % 2 == 0
        return NextToken()(model, row, key, 0).total, (charge(model.logits(tokens, key)) * even).sum(), even.sum()

    @jax.jit
    def gradients(params, row, key):
        batch = jax.tree.map(lambda x: x[None], row)
        (_, squares, count), pull = jax.vjp(lambda p: sums(p, batch["tokens"], batch, key[None]), params)
        nothing = np.zeros(count.shape, jax.dtypes.float0)
        return pull((1.0, 0.0, nothing))[0], pull((0.0, 1.0, nothing))[0], count, squares

    rows = [jax.device_get(gradients(state.params, jax.tree.map(lambda x: x[i], batch), keys[i])) for i in range(B)]  # noqa: B023
    weight, count = batch["weights"].sum(), sum(row[2] for row in rows)
    gradient = {
        path: sum(np.float64(loss[path]) / weight + 3.0 * np.float64(own[path]) / count for loss, own, *_ in rows)
        for path in state.params
    }
    return batch, state, gradient, (sum(row[3] for row in rows), count)


def assert_gradient(before, after, gradient):
    for path, wanted in gradient.items():
        np.testing.assert_allclose(before[path] - after[path], wanted, atol=2e-5, err_msg=path)


@pytest.mark.parametrize("microbatches", [1, 3])
def test_the_gradient_is_that_of_the_means_over_the_whole_batch(by_hand, microbatches):
    batch, state, gradient, term = by_hand

    @jax.jit
    def traced(coefficient, state, batch):  # a number of a population
        return make_step(recipe(coefficient=coefficient), microbatches=microbatches)(state, batch)

    after, metrics = traced(3.0, state, batch)
    assert_gradient(state.params, after.params, gradient)
    assert set(metrics) == {"accuracy", "auxiliary/squares", "grad_norm", "learning_rate", "loss", "skipped"}
    np.testing.assert_allclose(metrics["auxiliary/squares"], term, rtol=1e-5)


def test_devices_add_up_to_the_whole_batch(by_hand):
    batch, state, gradient, term = by_hand
    count = 4
    step = make_step(recipe(), microbatches=3, axis_name="devices")
    split = jax.tree.map(lambda x: x.reshape(count, -1, *x.shape[1:]), batch)
    mapped = jax.pmap(step, axis_name="devices", in_axes=(None, 0), out_axes=None, devices=jax.devices()[:count])
    after, metrics = mapped(state, split)
    assert_gradient(state.params, after.params, gradient)
    np.testing.assert_allclose(metrics["auxiliary/squares"], term, rtol=1e-5)


def test_nothing_is_computed_ahead_but_weights(by_hand):
    batch, state, _, _ = by_hand

    def flops(recipe, microbatches):
        return matmul_flops(jax.make_jaxpr(make_step(recipe, microbatches=microbatches))(state, batch))

    def gradient(params):
        keys = row_keys(stream_key(5, STEP, 0), jnp.arange(B))
        return jax.grad(lambda p: NextToken()(recipe().model.bind(p), batch, keys, 0).total)(params)

    alone = matmul_flops(jax.make_jaxpr(gradient)(state.params))
    assert alone > 0
    assert {flops(recipe(coefficient=c), m) for c in (0.0, 3.0) for m in (1, 3)} == {alone}


def test_a_term_that_is_not_finite_skips_the_step(by_hand):
    batch, state, _, _ = by_hand

    class Blind(NextToken):
        """Its own sums are finite, and do not depend on the parameters, whatever the model charges."""

        def __call__(self, model, batch, keys, step):
            return jax.tree.map(lambda x: jnp.ones_like(x), super().__call__(model, batch, keys, step))

    huge = jax.tree.map(lambda x: x * 1e12, state.params)
    after, metrics = jax.jit(make_step(recipe(Blind(), power=4, coefficient=1e-30)))(state._replace(params=huge), batch)
    assert skipped(after) == 1 and metrics["auxiliary/squares"] == (0, 0)
    jax.tree.map(np.testing.assert_array_equal, after.params, huge)


def test_only_an_open_collector_hears_and_the_innermost_one():
    report("forgotten", jnp.ones(()), 1.0, 1.0)
    with collecting() as outer:
        with collecting() as inner:
            report("a", jnp.asarray(3.0), 2.0, 0.5)
            report("a", jnp.asarray(4.0), 5.0, 0.5)
            report("free", jnp.asarray(4.0), 5.0, 0)
        report("b", jnp.asarray(1.0), 1.0, 0.5)
        thread = threading.Thread(target=report, args=("elsewhere", jnp.ones(()), 1.0, 1.0))
        thread.start()
        thread.join()
    assert inner == {"a": Term(7.0, 7.0, 0.5)} and outer == {"b": Term(1.0, 1.0, 0.5)}


def test_a_loss_that_calls_the_model_in_a_loop_is_told_so(by_hand):
    batch, state, _, _ = by_hand

    class Looping(NextToken):
        def __call__(self, model, batch, keys, step):
            again = super().__call__
            return jax.lax.map(lambda _: again(model, batch, keys, step), jnp.arange(2))

    with pytest.raises(ConfigError, match="'squares' cannot be added to a loss that calls the model inside a loop"):
        jax.eval_shape(make_step(dataclasses.replace(recipe(), loss=Looping())), state, batch)
