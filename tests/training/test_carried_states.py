"""States carried over windows: truncated back-propagation through time, against one written out here."""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lmlab.config import build, resolve
from lmlab.errors import ConfigError
from lmlab.training.fit import check_experiment
from lmlab.training.program import Program
from lmlab.training.replay import loss_and_gradients
from tests.later import later
from tests.training.conftest import assert_same_arrays

B, T, D = 8, 7, 5
CARRIED = (
    "experiment.model = @elman; elman.width = 5; experiment.packing = 'contiguous'; autoregressive.carry = True; "
    "experiment.optimizer = @sgd; sgd.learning_rate = 0.5; experiment.clip_norm = None; elman.init_scale = 0.7; "
    "random_tokens.valid_tokens = 211"
)
WINDOWS = 570 // T // B
"""Of a lane: 10, so that the epoch ends before the twelfth step."""


@pytest.fixture
def program(tiny):
    return lambda *how: Program(tiny(CARRIED, *how))


def steps_of(program, steps, state=None):
    """The exported state after so many steps."""
    step, state = program.compile_step(), program.init_state() if state is None else state
    for k in range(steps):
        state, _ = step(state, program.partitioner.place(program.data.train.batch(k)))
    return jax.device_get(program.partitioner.export(state))


def read(params, h, tokens):
    """The layer's outputs (B, T, D) and its last one."""
    outputs = []
    for x in params["embedding/embedding"][tokens].swapaxes(0, 1):
        shares = x @ params["blocks/input/kernel"][0] + params["blocks/input/bias"][0]
        h = jnp.tanh(shares + h @ params["blocks/recurrent/kernel"][0])
        outputs.append(h)
    return jnp.stack(outputs, 1), h


def nats(params, h, ids):
    """The sum over a window of every lane, and the last outputs."""
    outputs, h = read(params, h, ids[:, :-1])
    log_p = jax.nn.log_softmax(outputs @ params["head/kernel"] + params["head/bias"])
    return -jnp.take_along_axis(log_p, ids[:, 1:, None], -1).sum(), h


def windows_of(ids):
    """The windows of all lanes of an epoch, (B, T + 1) each."""
    size = WINDOWS * T
    lanes = np.stack([ids[lane * size : (lane + 1) * size + 1] for lane in range(B)])
    return [lanes[:, k * T : (k + 1) * T + 1] for k in range(WINDOWS)]


def test_training_is_truncated_back_propagation_through_time(program):
    """12 steps of SGD, of which the eleventh begins the second epoch with nothing read."""
    ours = program()
    (stream,) = build(ours.experiment.dataset).split("train")
    windows = windows_of(np.asarray(stream.ids))

    @jax.jit
    def step(params, h, ids):
        (_, h), gradient = jax.value_and_grad(nats, has_aux=True)(params, jax.lax.stop_gradient(h), ids)
        return {path: value - 0.5 * gradient[path] / (B * T) for path, value in params.items()}, h

    params, zeros = jax.device_get(ours.init_state().params), jnp.zeros((B, D))
    for k in range(12):
        params, h = step(params, zeros if k % WINDOWS == 0 else h, windows[k % WINDOWS])
    found = steps_of(ours, 12)
    for path, value in params.items():
        np.testing.assert_allclose(found.params[path], value, atol=2e-6, err_msg=path)
    np.testing.assert_allclose(found.model_state["carry"].h, h[:, None], atol=2e-6)


@pytest.fixture(scope="module")
def alone():
    """Three steps on one device, made by the first test that asks."""
    return {}


@pytest.mark.parametrize(
    "layout",
    [
        "mesh.data = 2; experiment.microbatches = 2",
        *later(["mesh.data = 2"]),
        "experiment.partitioner = @pmap; pmap.devices = 2; experiment.microbatches = 2",
    ],
)
def test_layouts_and_microbatches_change_nothing(program, alone, layout):
    if not alone:
        alone["state"] = steps_of(program(), 3)
    found, expected = steps_of(program(layout), 3), alone["state"]
    for one, other in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(one, other, atol=2e-6)


@pytest.mark.parametrize("layout", ["mesh.data = 2", "experiment.partitioner = @pmap; pmap.devices = 2"])
def test_what_is_carried_lies_over_the_devices_as_the_rows_do(program, layout):
    ours = program(layout)
    carry = ours.init_state().model_state["carry"].h
    assert {shard.data.size for shard in carry.addressable_shards} == {B // 2 * D}
    exported = ours.partitioner.export(ours.init_state())
    assert jax.tree.map(jnp.shape, exported) == jax.tree.map(jnp.shape, ours.abstract_state)
    values = jax.device_get(exported)
    assert_same_arrays(jax.device_get(ours.partitioner.export(ours.partitioner.load(exported))), values)


def test_a_skipped_step_keeps_what_was_carried(program):
    ours = program()
    step, state = ours.compile_step(), ours.init_state()
    state, _ = step(state, ours.partitioner.place(ours.data.train.batch(0)))
    before, bad = jax.device_get(state.model_state), ours.data.train.batch(1)
    bad["weights"][3, 2] = np.nan
    state, metrics = step(state, ours.partitioner.place(bad))
    assert metrics["skipped"][0] == 1
    assert_same_arrays(jax.device_get(state.model_state), before)
    assert np.any(before["carry"].h)


@pytest.mark.parametrize(
    ("evaluator", "layout", "batches"),
    [
        ("perplexity", "", 2),
        ("perplexity", "experiment.partitioner = @pmap; pmap.devices = 2", None),
        ("held_out", "mesh.data = 2", None),
    ],
)
def test_an_evaluation_reads_each_lane_from_its_beginning_to_its_end(program, evaluator, layout, batches):
    """By a model that reads whole lanes at once; of the first batches, the beginnings of all lanes."""
    ours = program(layout, f"experiment.evaluators = [@{evaluator}]; {evaluator}.batches = {batches}")
    state = ours.init_state()
    params = jax.device_get(ours.partitioner.export(state).params)
    (stream,) = build(ours.experiment.dataset).split("valid")
    ids, total, targets = np.asarray(stream.ids), 0.0, 0
    size = 4 * T  # of a lane: 210 predictions are 30 windows, and the last two places of the last lane are padding
    for begin in range(0, B * size, size):
        part = ids[begin : begin + min(size, (batches or 4) * T) + 1]
        total += float(nats(params, jnp.zeros((1, D)), part[None])[0])
        targets += len(part) - 1
    assert targets == 210 or batches
    measure = build(ours.experiment.evaluators[0]).bind(ours)
    found = measure(state)
    assert measure(state) == found  # begins anew
    name = {"perplexity": "valid/nats_per_token", "held_out": "valid/nats"}[evaluator]
    assert found[name] == pytest.approx(total / targets, rel=1e-5)


def test_a_step_is_replayed_from_what_was_carried(program):
    ours = program()
    step, state = ours.compile_step(), ours.init_state()
    state, _ = step(state, ours.partitioner.place(ours.data.train.batch(0)))
    batch = ours.data.train.batch(1)
    loss, _ = jax.jit(lambda state, batch: loss_and_gradients(ours, state, batch))(state, batch)
    total, weight = step(state, ours.partitioner.place(batch))[1]["loss"]
    assert float(loss) == pytest.approx(float(total / weight), rel=1e-5)


def test_without_it_nothing_is_carried(tiny):
    ours = Program(tiny("experiment.packing = 'contiguous'"))  # only an order
    assert ours.abstract_state.model_state == {}
    assert "fresh" in ours.abstract_batch


@pytest.mark.parametrize(
    ("how", "text"),
    [
        ("experiment.packing = 'windows'", "Set experiment.packing = 'contiguous'."),
        ("experiment.updates = [@update]", "autoregressive.carry: with experiment.updates"),
        (
            "experiment.model = @ngram; experiment.optimizer = @counting; experiment.clip_norm = 1.0",
            "autoregressive.carry: the model 'ngram' counts",
        ),
        ("experiment.model = @gpt; gpt.positions = 'rotary'", "the model 'gpt' cannot carry its state"),
        ("experiment.model = @gpt", "the model 'gpt' cannot carry its state"),
        ("experiment.model = @hyena", "'hyena' cannot carry its state from window to window: its cache grows"),
    ],
)
def test_what_cannot_carry_is_refused_in_one_line(tiny, how, text):
    parts = [part for part in CARRIED.split("; ") if part.split(" = ")[0] not in how]
    for own, chosen in (("elman.", "experiment.model"), ("sgd.", "experiment.optimizer")):
        parts = [part for part in parts if not (chosen in how and part.startswith(own))]
    with pytest.raises(ConfigError) as refused:
        Program(tiny("; ".join(parts), how))
    assert text in str(refused.value)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("carry", [True, False])
def test_the_experiment_that_shows_it_fits_together(carry):
    file = Path(__file__).parents[2] / "experiments" / "recurrent" / "carried.gin"
    experiment = resolve([str(file)], [f"autoregressive.carry = {carry}"]).build()
    check_experiment(experiment)
    assert (experiment.packing, build(experiment.loss).carry) == ("contiguous", carry)
