"""Arrays that never change stand once beside all checkpoints, and come back with each of them."""

import dataclasses
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lmlab.errors import CheckpointError
from lmlab.training.checkpoint import Checkpoints, Note, named
from lmlab.training.experiment import Checkpoints as Policy
from lmlab.training.metrics_file import Position
from tests.training.conftest import flip_byte

FROZEN = ("params/base", "params/none")


def state(step):
    draw = np.random.default_rng(7).normal(size=(211, 13)).astype(np.float32)  # the base is the same at every step
    return {"params": {"base": jnp.asarray(draw), "none": jnp.zeros((0, 3)), "own": jnp.full((5,), float(step))}}


def note(step):
    return Note(step, {}, Position(), -1, -1, {}, None, {})


def target():
    sharding = jax.sharding.SingleDeviceSharding(jax.devices()[0])
    return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding), state(0))


@pytest.fixture
def run(tmp_path):
    """A folder in which steps 1 and 2 were saved in one session, and step 3 in another one."""
    for steps in ((1, 2), (3,)):
        checkpoints = Checkpoints(tmp_path / "checkpoints", Policy(keep_last=9), FROZEN)
        for step in steps:
            checkpoints.save(state(step), note(step))
        checkpoints.close()
    return tmp_path


def size(folder):
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())


def test_every_checkpoint_is_whole_although_the_frozen_arrays_are_there_once(run):
    checkpoints = Checkpoints(run / "checkpoints")
    for step in (1, 2, 3):
        jax.tree.map(np.testing.assert_array_equal, checkpoints.restore(step, target()), state(step))
        assert checkpoints.note(step).arrays.keys() == named(state(step)).keys()
        assert checkpoints.note(step).frozen == ("params/base",)
    names = {"params/base": named(target())["params/base"]}
    np.testing.assert_array_equal(checkpoints.arrays(3, names)["params/base"], state(3)["params"]["base"])
    whole = 211 * 13 * 4
    assert size(run / "frozen") > 0.8 * whole  # what random numbers are compressed to
    assert all(size(run / "checkpoints" / str(step)) < 0.8 * whole for step in (1, 2, 3))


def test_a_save_that_was_killed_before_its_checkpoint_was_there_is_made_again(tmp_path):
    first = Checkpoints(tmp_path / "checkpoints", Policy(), FROZEN)
    other = {"params": {**state(1)["params"], "base": jnp.zeros((211, 13))}}
    first.save(other, note(1))
    first.close()
    shutil.rmtree(tmp_path / "checkpoints" / "1")
    (tmp_path / "frozen.orbax-checkpoint-tmp-7").mkdir()
    again = Checkpoints(tmp_path / "checkpoints", Policy(), FROZEN)
    again.save(state(1), note(1))
    again.close()
    jax.tree.map(np.testing.assert_array_equal, Checkpoints(tmp_path / "checkpoints").restore(1, target()), state(1))
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["checkpoints", "frozen"]


def test_checkpoints_of_before_are_read_and_gone_on_from(tmp_path):
    old = Checkpoints(tmp_path / "checkpoints", Policy(keep_last=9))
    old.save(state(1), note(1))
    old.close()
    new = Checkpoints(tmp_path / "checkpoints", Policy(keep_last=9), FROZEN)
    new.save(state(2), note(2))
    new.close()
    for step in (1, 2):
        found = Checkpoints(tmp_path / "checkpoints").restore(step, target())
        jax.tree.map(np.testing.assert_array_equal, found, state(step))
    plain = {name: value for name, value in dataclasses.asdict(note(1)).items() if name != "frozen"}
    assert Note(**{**plain, "metrics": Position()}).frozen == ()


def test_a_damaged_or_missing_folder_is_named_with_the_way_out(run):
    largest = max(
        (file for file in (run / "frozen").rglob("*") if file.is_file()), key=lambda file: file.stat().st_size
    )
    flip_byte(largest, largest.stat().st_size // 2)
    with pytest.raises(CheckpointError, match=r"frozen holds what all checkpoints of the run share.*damaged"):
        Checkpoints(run / "checkpoints").restore(3, target())
    shutil.rmtree(run / "frozen")
    with pytest.raises(CheckpointError, match=r"frozen holds what all checkpoints of the run share.*--fresh"):
        Checkpoints(run / "checkpoints").restore(3, target())
