"""Every partitioner trains to the same numbers, and says what does not fit."""

import re

import jax
import numpy as np
import pytest
from tiny_lm import NextToken, ragged_batches, tiny_model

from lmlab.errors import ConfigError
from lmlab.nn.functional import ModelDef
from lmlab.optim.optimizers import SGD, Adafactor, AdamW, Muon
from lmlab.parallel.mesh import Mesh
from lmlab.parallel.pmap import Pmap
from lmlab.registry import losses, models
from lmlab.training.randomness import INIT, stream_key
from lmlab.training.step import Recipe, make_init, make_step, many_steps
from tests.later import later

B, STEPS, SEED = 16, 5, 3
LAYOUTS = {
    "8-way data": Mesh(),
    "8-way fsdp": Mesh(data=1, fsdp=8),
    "2x4 tensor": Mesh(data=2, tensor=4),
    "2x2x2": Mesh(data=2, fsdp=2, tensor=2),
    "pmap 8": Pmap(),
}


def recipe_with(optimizer):
    return Recipe(tiny_model(), NextToken(), optimizer, seed=SEED, clip_norm=0.7, ema=0.9)


def shapes_of(batch):
    return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), batch)


def train(partitioner, recipe, batches, microbatches=1):
    init, key = make_init(recipe), stream_key(SEED, INIT)
    step = make_step(recipe, microbatches=microbatches, axis_name=partitioner.axis_name)
    partitioner.check(B, microbatches)
    program = partitioner.compile(step, partitioner.abstract(init, key), shapes_of(batches[0]), donate=True)
    state, losses = partitioner.initializer(init, key)(key), []
    with jax.transfer_guard("disallow"):
        for batch in batches:
            state, metrics = program(state, partitioner.place(batch))
            losses.append(metrics["loss"])
        losses = [float(total / weight) for total, weight in jax.device_get(losses)]
    return losses, jax.device_get(partitioner.export(state))


@pytest.fixture(scope="module")
def alone():
    """Losses and final state on one device, by optimizer."""
    batches = ragged_batches(STEPS, B)
    one = Mesh(data=1)
    # SGD, because Adam divides by the gradient's size and so hides a gradient that is 8 times too large.
    optimizers = {"sgd": SGD(0.5, momentum=0.9), "adamw": AdamW(0.01), "muon": Muon(0.02, 0.01)}
    return {name: (tx, *train(one, recipe_with(tx), batches)) for name, tx in optimizers.items()}


@pytest.mark.parametrize(
    ("layout", "optimizer"),
    [
        ("pmap 8", "sgd"),
        ("2x2x2", "adamw"),
        ("2x2x2", "muon"),
        *later([*((layout, "sgd") for layout in LAYOUTS if layout != "pmap 8"), ("8-way fsdp", "adamw")]),
    ],
)
def test_every_layout_trains_like_one_device(alone, layout, optimizer):
    tx, losses, final = alone[optimizer]
    there_losses, there = train(LAYOUTS[layout], recipe_with(tx), ragged_batches(STEPS, B))
    np.testing.assert_allclose(there_losses, losses, atol=1e-5)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5), there.params, final.params)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5), there.opt_state["ema"], final.opt_state["ema"]
    )
    assert there.step == STEPS


@pytest.mark.parametrize("layout", ["2x2x2", "pmap 8", *later(["8-way data"])])
def test_microbatches_on_devices_are_one_batch(alone, layout):
    tx, losses, _ = alone["sgd"]
    there, _ = train(LAYOUTS[layout], recipe_with(tx), ragged_batches(STEPS, B), microbatches=2)
    np.testing.assert_allclose(there, losses, atol=1e-5)


@pytest.mark.parametrize("layout", ["2x2x2", "pmap 8"])
def test_several_steps_per_dispatch_are_single_steps(alone, layout):
    tx, losses, _ = alone["sgd"]
    partitioner, recipe, batches = LAYOUTS[layout], recipe_with(tx), ragged_batches(STEPS, B)
    stacked = {name: np.stack([batch[name] for batch in batches]) for name in batches[0]}
    init, key = make_init(recipe), stream_key(SEED, INIT)
    steps = many_steps(make_step(recipe, axis_name=partitioner.axis_name))
    program = partitioner.compile(steps, partitioner.abstract(init, key), stacked, leading=1, donate=True)
    _, metrics = program(partitioner.initializer(init, key)(key), partitioner.place(stacked, leading=1))
    total, weight = jax.device_get(metrics["loss"])
    np.testing.assert_allclose(total / weight, losses, atol=1e-5)


@pytest.mark.parametrize("layout", ["2x2x2", "pmap 8"])
def test_an_exported_state_is_loaded_as_it_was(layout):
    partitioner, recipe = LAYOUTS[layout], recipe_with(AdamW(0.01))
    init, key = make_init(recipe), stream_key(SEED, INIT)
    state = partitioner.initializer(init, key)(key)
    exported, target = partitioner.export(state), partitioner.abstract(init, key)
    kind = lambda leaf: (leaf.shape, leaf.dtype, leaf.sharding)  # noqa: E731
    assert jax.tree.map(kind, exported) == jax.tree.map(kind, target)
    expected = jax.device_get(exported)
    again = partitioner.load(exported)
    jax.tree.map(np.testing.assert_array_equal, jax.device_get(partitioner.export(again)), expected)
    (batch,) = ragged_batches(1, B)
    program = partitioner.compile(make_step(recipe, axis_name=partitioner.axis_name), target, batch, donate=True)
    after, _ = program(again, partitioner.place(batch))
    assert int(partitioner.export(after).step) == 1


@pytest.mark.parametrize("layout", ["2x2x2", "pmap 8"])
def test_evaluation_gives_sums_over_all_devices(layout):
    partitioner, recipe = LAYOUTS[layout], recipe_with(SGD(0.1))
    (batch,) = ragged_batches(1, B)
    init, key = make_init(recipe), stream_key(SEED, INIT)

    def evaluate(params, batch):
        output = NextToken()(recipe.model.bind(params), batch, None, 0)
        sums = (output.total, output.weight)
        return sums if partitioner.axis_name is None else jax.lax.psum(sums, partitioner.axis_name)

    program = partitioner.compile(evaluate, partitioner.abstract(init, key).params, batch)
    total, weight = program(partitioner.initializer(init, key)(key).params, partitioner.place(batch))
    alone = NextToken()(recipe.model.bind(jax.jit(init)(key).params), batch, None, 0)
    assert float(weight) == batch["weights"].sum()
    np.testing.assert_allclose(total, alone.total, rtol=1e-5)


def test_the_optimizers_state_lies_as_its_parameters_do():
    recipe, mesh = recipe_with(Muon(0.1, 0.1)), Mesh(data=2, fsdp=2, tensor=2)
    state = mesh.initializer(make_init(recipe), key := stream_key(SEED, INIT))(key)
    layout = lambda leaf: tuple(leaf.sharding.spec) if any(leaf.sharding.spec) else ()  # noqa: E731
    assert layout(state.params["up/kernel"]) == (None, "fsdp", "tensor")
    assert layout(state.params["down/kernel"]) == (None, "tensor", "fsdp")
    assert layout(state.params["embedding"]) == (None, "fsdp")
    assert layout(state.params["scale"]) == layout(state.step) == ()
    kept = {
        (keys[-1].key, leaf.shape): layout(leaf)
        for keys, leaf in jax.tree_util.tree_leaves_with_path(state.opt_state)
        if isinstance(keys[-1], jax.tree_util.DictKey)
    }
    for path, leaf in state.params.items():
        assert kept[path, leaf.shape] == layout(leaf)


def test_what_adafactor_keeps_in_another_shape_is_replicated():
    recipe, mesh = recipe_with(Adafactor(0.1, min_size_to_factor=2)), Mesh(data=1, fsdp=8)
    losses, _ = train(mesh, recipe, ragged_batches(STEPS, B))
    expected, _ = train(Mesh(data=1), recipe, ragged_batches(STEPS, B))
    np.testing.assert_allclose(losses, expected, atol=1e-5)


def test_with_fewer_devices_than_there_are_the_first_are_used():
    assert [device.id for device in Mesh(data=3).mesh.devices.flat] == [0, 1, 2]
    assert [device.id for device in Pmap(devices=3).used] == [0, 1, 2]
    assert Mesh(fsdp=2, tensor=2).mesh.shape == {"data": 2, "fsdp": 2, "tensor": 2}


@pytest.mark.parametrize(
    "partitioner", [Mesh(data=9), Mesh(data=0), Mesh(fsdp=16), Mesh(tensor=0), Pmap(devices=9), Pmap(devices=0)]
)
def test_devices_that_are_not_there_are_refused(partitioner):
    with pytest.raises(ConfigError, match=r"8 devices|there are 8"):
        partitioner.check(16, 1)


@pytest.mark.parametrize(
    ("partitioner", "rows", "microbatches", "near"),
    [(Mesh(), 12, 1, "8 or 16"), (Mesh(), 16, 3, "24"), (Pmap(), 7, 1, "8"), (Mesh(data=2, tensor=4), 9, 2, "8 or 12")],
)
def test_a_batch_that_does_not_divide_is_refused_with_sizes_that_do(partitioner, rows, microbatches, near):
    with pytest.raises(ConfigError, match=rf"global_batch_size = {rows} does not divide.*Make it {near}"):
        partitioner.check(rows, microbatches)


def test_a_batch_is_split_over_data_and_fsdp_only():
    Mesh(data=2, tensor=4).check(2, 1)
    assert Mesh().rows(16) == Pmap().rows(16) == Mesh(data=2, tensor=4).rows(16) == range(16)


def shardings_of(mesh, **shapes):
    mesh.abstract(lambda _: {path.replace("__", "/"): np.zeros(s, np.float32) for path, s in shapes.items()}, 0)


def test_a_parameter_that_no_rule_covers_is_an_error_that_names_it():
    with pytest.raises(ConfigError, match=r"no rule covers the parameter 'blocks/gadget' \(3, 8\)"):
        shardings_of(Mesh(fsdp=8), blocks__gadget=(3, 8))
    shardings_of(Mesh(fsdp=8, rules=((r"gadget$", (None, "fsdp")),)), blocks__gadget=(3, 8))
    shardings_of(Mesh(), blocks__gadget=(3, 8))  # nothing is split, so nothing needs a rule


def test_a_dimension_that_does_not_divide_is_an_error_with_the_way_out():
    with pytest.raises(
        ConfigError, match=r"'blocks/up/kernel' \(2, 16, 25\) has a dimension of 25.*tensor=4.*mesh.rules"
    ):
        shardings_of(Mesh(tensor=4), blocks__up__kernel=(2, 16, 25))


def test_a_rule_with_an_axis_that_does_not_exist_is_refused():
    with pytest.raises(ConfigError, match="names the axis 'model'; the mesh has data, fsdp, tensor"):
        shardings_of(Mesh(tensor=4, rules=((r"gadget", ("model",)),)), gadget=(8,))
    with pytest.raises(ConfigError, match="names 2 axes"):
        shardings_of(Mesh(tensor=4, rules=((r"gadget", (None, "tensor")),)), gadget=(8,))
    with pytest.raises(ConfigError, match="not a regular expression"):
        shardings_of(Mesh(tensor=4, rules=((r"gadget(", ()),)), gadget=(8,))


def test_the_first_rule_wins():
    rules = ((r"up/kernel", ()), (r"up/kernel", ("tensor", None)))
    state = Mesh(tensor=4, rules=rules).initializer(lambda _: {"up/kernel": jax.numpy.zeros((8, 8))}, 0)(0)
    assert not any(state["up/kernel"].sharding.spec)


@pytest.mark.parametrize("partitioner", [Mesh(), Mesh(data=1), Pmap(), Pmap(devices=1)])
def test_a_placed_batch_shares_no_memory_with_the_loaders(partitioner):
    for offset in range(16):  # whether jax takes the host's memory as it is depends on its alignment
        buffer = np.zeros(16 * 32 + 16, np.int32)[offset : offset + 16 * 32].reshape(16, 32)
        placed = partitioner.place({"tokens": buffer})["tokens"]
        buffer[:] = 7
        assert not np.asarray(placed).any()


def test_in_data_parallel_nothing_but_sums_crosses_devices():
    recipe = recipe_with(SGD(0.1))
    (batch,) = ragged_batches(1, B)
    init, key = make_init(recipe), stream_key(SEED, INIT)
    program = Mesh().compile(make_step(recipe, microbatches=2), Mesh().abstract(init, key), batch, donate=True)
    text = program.as_text()
    assert "all-reduce" in text
    assert not any(word in text for word in ("all-gather", "all-to-all", "collective-permute"))


def test_a_donated_state_is_gone_and_the_initial_state_shares_nothing():
    recipe = recipe_with(AdamW(0.1))
    (batch,) = ragged_batches(1, B)
    init, key, mesh = make_init(recipe), stream_key(SEED, INIT), Mesh()
    program = mesh.compile(make_step(recipe), mesh.abstract(init, key), batch, donate=True)
    first, second = mesh.initializer(init, key)(key), mesh.initializer(init, key)(key)
    program(first, mesh.place(batch))
    assert all(leaf.is_deleted() for leaf in first.params.values())
    program(second, mesh.place(batch))


def test_a_compiled_step_refuses_other_shapes():
    recipe = recipe_with(SGD(0.1))
    (batch,), (other,) = ragged_batches(1, B), ragged_batches(1, 2 * B)
    init, key, mesh = make_init(recipe), stream_key(SEED, INIT), Mesh()
    program = mesh.compile(make_step(recipe), mesh.abstract(init, key), batch, donate=True)
    with pytest.raises(TypeError, match="compiled"):
        program(mesh.initializer(init, key)(key), mesh.place(other))


REAL = {
    "gpt": {"seq_len": 5, "width": 32, "heads": 4, "layers": 2, "dropout": 0.1},
    "lstm": {"width": 32, "layers": 2, "dropout": 0.1},
}


def registered(name):
    make = lambda rngs: models.get(name)(11, dtype=np.float32, rngs=rngs, **REAL[name])  # noqa: E731
    return Recipe(ModelDef.of(make), losses.get("autoregressive")(), AdamW(0.01), SEED)


@pytest.mark.parametrize(
    ("name", "mesh", "axis"),
    [("gpt", Mesh(fsdp=8), "fsdp"), ("gpt", Mesh(tensor=4), "tensor"), ("lstm", Mesh(fsdp=8), "fsdp")],
)
def test_lmlabs_rules_split_every_kernel_of_its_models(name, mesh, axis):
    recipe = registered(name)
    params = mesh.abstract(make_init(recipe), stream_key(SEED, INIT)).params
    split = {path for path, leaf in params.items() if axis in leaf.sharding.spec}
    assert {path for path, role in recipe.model.roles.items() if role == "kernel"} <= split


def test_lmlabs_rules_keep_a_recurrent_layer_whole_over_the_tensor_axis():
    params = Mesh(tensor=4).abstract(make_init(registered("lstm")), stream_key(SEED, INIT)).params
    assert not any("tensor" in leaf.sharding.spec for leaf in params.values())


def test_fully_sharded_training_gathers_parameters_and_not_rows():
    recipe, mesh = registered("gpt"), Mesh(data=1, fsdp=8)
    batch = {name: array[:, :5] for name, array in ragged_batches(1, B)[0].items()}
    program = mesh.compile(
        make_step(recipe), mesh.abstract(make_init(recipe), stream_key(SEED, INIT)), batch, donate=True
    )
    moved = " ".join(re.findall(r"= (\S+|\(.*?\)) (?:all-gather|all-reduce)(?:-start)?\(", program.as_text()))
    assert "f32[32,128]" in moved  # the kernel of the feed-forward half
    # No activation of all 16 rows, alone or times 5 tokens, is made on every device.
    assert not re.findall(r"f32\[(?:16,5|5,16|16|80),\d+[^ ]*", moved), moved
