import dataclasses
import json
import shutil
import signal
import subprocess
import sys
import time
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from lmlab.errors import CheckpointError, RunFolderError
from lmlab.training.checkpoint import Checkpoints, Note, kept, named
from lmlab.training.experiment import Checkpoints as Policy
from lmlab.training.metrics_file import Position
from tests.training.conftest import assert_same_arrays, flip_byte

KEEP_ALL = Policy(keep_last=1000)


class State(NamedTuple):
    step: Any
    params: dict[str, Any]
    opt_state: Any


def make_state(seed: int = 0, layers: int = 13) -> State:
    """With every leaf type that states have, and more than ten layers, whose names sort otherwise as strings."""
    rng = np.random.default_rng(seed)
    params = {f"blocks/{i}/kernel": jnp.asarray(rng.normal(size=(3, 5)), jnp.float32) for i in range(layers)}
    params |= {"half": jnp.asarray(rng.normal(size=(7,)), jnp.bfloat16), "none": jnp.zeros((0, 5))}
    return State(jnp.asarray(seed, jnp.int32), params, {"update": optax.adam(1e-3).init(params), "ema": None})


def target(state: Any) -> Any:
    return jax.eval_shape(lambda: state)


def on_device(shapes: Any) -> Any:
    one = jax.sharding.SingleDeviceSharding(jax.devices()[0])
    return jax.tree.map(lambda s: jax.ShapeDtypeStruct(s.shape, s.dtype, sharding=one), shapes)


def note(step: int, score: float | None = None) -> Note:
    return Note(step, {"rows": 3}, Position(12), -1, step, {"sums": {"loss": [1 / 3, 7.0]}}, score, {"spec": 1})


def save(folder, steps, policy=KEEP_ALL, scores=None):
    checkpoints = Checkpoints(folder, policy)
    for step in steps:
        checkpoints.save(make_state(step), note(step, (scores or {}).get(step)))
    checkpoints.close()


def test_a_state_comes_back_to_the_bit_with_its_types(tmp_path):
    state = make_state(3)
    save(tmp_path, [3])
    checkpoints = Checkpoints(tmp_path)
    restored = checkpoints.restore(3, on_device(target(state)))
    assert_same_arrays(state, restored)
    assert type(restored.opt_state["update"][0]) is optax.ScaleByAdamState


def test_the_note_comes_back_with_what_was_committed_beside_the_arrays(tmp_path):
    save(tmp_path, [5])
    found = Checkpoints(tmp_path).note(5)
    assert dataclasses.replace(found, arrays={}) == note(5)
    assert found.arrays["params/blocks/10/kernel"][:2] == ((3, 5), "float32")


def test_only_the_arrays_that_are_asked_for_are_read(tmp_path):
    save(tmp_path, [2])
    wanted = {n: s for n, s in named(on_device(target(make_state()))).items() if n.startswith("params/blocks/1")}
    found = Checkpoints(tmp_path).arrays(2, wanted)
    assert_same_arrays(found, {name: value for name, value in named(make_state(2)).items() if name in wanted})


def test_a_target_of_other_paths_shapes_and_types_is_refused_with_every_difference(tmp_path):
    save(tmp_path, [1])
    shapes = target(make_state())
    params = dict(shapes.params)
    params["blocks/3/kernal"] = params.pop("blocks/3/kernel")
    params["blocks/4/kernel"] = jax.ShapeDtypeStruct((5, 3), jnp.float32)
    params["half"] = jax.ShapeDtypeStruct((7,), jnp.float16)
    with pytest.raises(CheckpointError) as refused:
        Checkpoints(tmp_path).restore(1, on_device(shapes._replace(params=params)))
    text = str(refused.value)
    assert "params/blocks/3/kernal is not in the checkpoint" in text
    assert "params/blocks/3/kernel is in the checkpoint only" in text
    assert "params/blocks/4/kernel is float32[3, 5] there, float32[5, 3] here" in text
    assert "params/half is bfloat16[7] there, float16[7] here" in text
    assert text.count("\n") == 4


def test_a_missing_step_is_refused_with_those_that_are_there(tmp_path):
    save(tmp_path, [2, 5])
    with pytest.raises(CheckpointError, match=r"no checkpoint of step 3. It has: 2, 5"):
        Checkpoints(tmp_path).restore(3, on_device(target(make_state())))


@pytest.mark.parametrize("step", [1, 2])
def test_saving_an_old_step_again_is_an_error_and_not_silently_nothing(tmp_path, step):
    save(tmp_path, [2])
    checkpoints = Checkpoints(tmp_path, KEEP_ALL)
    with pytest.raises(CheckpointError, match="has a checkpoint of step 2 already"):
        checkpoints.save(make_state(step), note(step))
    assert checkpoints.steps() == [2]


def test_the_state_may_be_donated_while_it_is_being_saved(tmp_path):
    state, checkpoints = make_state(4), Checkpoints(tmp_path, KEEP_ALL)
    copy = jax.tree.map(np.asarray, state)
    change = jax.jit(lambda tree: jax.tree.map(lambda x: x + 1, tree), donate_argnums=0)
    for step in range(1, 4):
        checkpoints.save(state, note(step))
        state = change(state)
    checkpoints.wait()
    assert_same_arrays(copy, checkpoints.restore(1, on_device(target(state))))


@pytest.mark.parametrize("axes", [PartitionSpec(), PartitionSpec(None, "a"), PartitionSpec("b", "a")])
def test_it_is_restored_onto_another_number_of_devices(tmp_path, axes):
    array = jnp.asarray(np.random.default_rng(0).normal(size=(16, 24)), jnp.float32)
    mesh = jax.make_mesh((4, 2), ("a", "b"), axis_types=(AxisType.Auto,) * 2)
    state = {"x": jax.device_put(array, NamedSharding(mesh, PartitionSpec("a")))}
    checkpoints = Checkpoints(tmp_path, KEEP_ALL)
    checkpoints.save(state, note(1))
    checkpoints.close()
    for sharding in (NamedSharding(mesh, axes), jax.sharding.SingleDeviceSharding(jax.devices()[3])):
        restored = Checkpoints(tmp_path).restore(
            1, {"x": jax.ShapeDtypeStruct((16, 24), jnp.float32, sharding=sharding)}
        )
        assert restored["x"].sharding == sharding
        assert_same_arrays(restored, {"x": array})


# --- What is kept ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("policy", "steps", "there"),
    [
        (Policy(keep_last=2), range(2, 21, 2), [18, 20]),
        (Policy(keep_last=1), [5, 7], [7]),
        (Policy(keep_last=2, keep_best=2), range(2, 21, 2), [6, 12, 18, 20]),
        (Policy(keep_last=1, keep_best=1, lower_is_better=False), range(2, 21, 2), [2, 20]),
        (Policy(keep_last=1, keep_best=3), [4, 6, 20], [4, 6, 20]),
    ],
)
def test_the_policy_keeps_the_last_and_the_best(tmp_path, policy, steps, there):
    scores = {2: 9.0, 4: 5.0, 6: 1.0, 8: 4.0, 10: 3.0, 12: 1.5, 14: 8.0, 16: float("nan"), 18: 7.0}
    save(tmp_path, steps, policy, scores)
    assert Checkpoints(tmp_path).steps() == there


def test_the_best_of_earlier_sessions_is_kept_too(tmp_path):
    policy = Policy(keep_last=1, keep_best=1)
    save(tmp_path, [1, 2], policy, {1: 3.0, 2: 5.0})
    save(tmp_path, [3, 4], policy, {3: 4.0, 4: 6.0})
    assert Checkpoints(tmp_path).steps() == [1, 4]


def test_of_equally_good_checkpoints_the_newer_is_kept():
    assert kept([1, 2, 3], {1: 5.0, 2: 5.0}, Policy(keep_last=1, keep_best=1)) == {2, 3}


def test_nothing_is_deleted_before_the_newer_one_is_committed(tmp_path):
    checkpoints = Checkpoints(tmp_path, Policy(keep_last=1))
    seen = []
    for step in (1, 2, 3):
        checkpoints.save(make_state(step), note(step))
        seen.append({int(path.name) for path in tmp_path.iterdir() if path.name.isdigit()} - {step})
    assert seen == [set(), {1}, {2}]
    checkpoints.close()


# --- What is damaged ------------------------------------------------------------------------------------------


def test_no_flipped_byte_anywhere_gives_a_wrong_state(tmp_path):
    save(tmp_path, [1, 2])
    state, rng = make_state(2), np.random.default_rng(0)
    files = [path for path in (tmp_path / "2").rglob("*") if path.is_file() and path.stat().st_size]
    refused = 0
    for path in files:
        for at in rng.integers(0, path.stat().st_size, 1):
            before = flip_byte(path, int(at))
            try:
                checkpoints = Checkpoints(tmp_path)
                restored, found = checkpoints.restore(2, on_device(target(state))), checkpoints.note(2)
            except CheckpointError as error:
                refused += 1
                assert str(tmp_path / "2") in str(error) or "has no checkpoint of step 2" in str(error)
                assert str(error).count("\n") == 0
            else:  # a byte that does not matter, such as a date
                assert_same_arrays(restored, state)
                assert dataclasses.replace(found, arrays={}) == note(2)
            finally:
                for file, content in before.items():
                    file.write_bytes(content)
    assert refused >= 4
    assert_same_arrays(Checkpoints(tmp_path).restore(2, on_device(target(state))), state)


def test_a_damaged_checkpoint_is_named_with_the_one_to_go_back_to(tmp_path):
    save(tmp_path, [1, 2])
    for path in (tmp_path / "2" / "state").rglob("d/*"):
        flip_byte(path, path.stat().st_size // 2)
    with pytest.raises(CheckpointError, match=r"/2 is damaged: .*Nothing was deleted.*--from-step 1"):
        Checkpoints(tmp_path).restore(2, on_device(target(make_state())))
    assert Checkpoints(tmp_path).steps() == [1, 2]


def test_numbers_that_changed_without_breaking_the_file_are_found_by_their_checksum(tmp_path):
    save(tmp_path, [1, 2])
    shutil.rmtree(tmp_path / "2" / "state")
    shutil.copytree(tmp_path / "1" / "state", tmp_path / "2" / "state")  # intact, and not what was saved
    with pytest.raises(CheckpointError, match="/2 is damaged: the checksum of params/blocks/0/kernel"):
        Checkpoints(tmp_path).restore(2, on_device(target(make_state())))


def test_a_changed_note_is_found(tmp_path):
    save(tmp_path, [1])
    path = tmp_path / "1" / "note" / "metadata"
    saved = json.loads(path.read_text())
    path.write_text(json.dumps({**saved, "step": 7}))
    with pytest.raises(CheckpointError, match="does not agree with its digest"):
        Checkpoints(tmp_path).note(1)


def test_half_written_checkpoints_are_removed_at_open_by_those_who_write(tmp_path):
    save(tmp_path, [1])
    half = tmp_path / "2.orbax-checkpoint-tmp-17"
    shutil.copytree(tmp_path / "1", half)
    assert Checkpoints(tmp_path).steps() == [1]
    assert half.exists()
    checkpoints = Checkpoints(tmp_path, KEEP_ALL)
    assert checkpoints.steps() == [1]
    assert not half.exists()
    checkpoints.save(make_state(2), note(2))
    checkpoints.close()
    assert Checkpoints(tmp_path).steps() == [1, 2]


SAVE_WITHOUT_END = """
import sys, jax.numpy as jnp
from pathlib import Path
from lmlab.training.checkpoint import Checkpoints
from tests.training.test_checkpoint import KEEP_ALL, note
checkpoints = Checkpoints(Path(sys.argv[1]), KEEP_ALL)
for step in range(1, 10**6):
    checkpoints.save({"x": jnp.full((300, 1000), step, jnp.float32)}, note(step))
    print(step, flush=True)
"""


def test_kill_during_a_save_leaves_only_whole_checkpoints(tmp_path):
    for _ in range(2):
        child = subprocess.Popen([sys.executable, "-c", SAVE_WITHOUT_END, str(tmp_path)], stdout=subprocess.PIPE)
        for _ in range(3):
            child.stdout.readline()
        time.sleep(0.01)
        child.send_signal(signal.SIGKILL)
        child.wait()
        child.stdout.close()
        checkpoints = Checkpoints(tmp_path, KEEP_ALL)
        steps = checkpoints.steps()
        assert steps
        shape = on_device(target({"x": jnp.zeros((300, 1000))}))
        for step in steps:
            assert bool(jnp.all(checkpoints.restore(step, shape)["x"] == step))
        checkpoints.close()
        shutil.rmtree(tmp_path)
        tmp_path.mkdir()


# --- What cannot be written -----------------------------------------------------------------------------------


SAVE_WITH_LITTLE_ROOM = """
import resource, sys, jax.numpy as jnp, numpy as np
from pathlib import Path
from lmlab.errors import RunFolderError
from lmlab.training.checkpoint import Checkpoints
from tests.training.test_checkpoint import KEEP_ALL, note
checkpoints = Checkpoints(Path(sys.argv[1]), KEEP_ALL)
checkpoints.save({"x": jnp.zeros(10)}, note(1))
checkpoints.wait()
resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))
try:
    checkpoints.save({"x": jnp.asarray(np.random.default_rng(0).normal(size=100_000))}, note(2))
    checkpoints.wait()
except RunFolderError as error:
    print(error)
"""


def test_a_full_disk_is_one_line_and_keeps_what_was_saved(tmp_path):
    done = subprocess.run([sys.executable, "-c", SAVE_WITH_LITTLE_ROOM, str(tmp_path)], capture_output=True, text=True)
    assert f"{tmp_path}/2" in done.stdout
    assert "checkpoints that are safe: 1" in done.stdout or "run the same command again" in done.stdout
    assert done.stdout.count("\n") == 1
    assert Checkpoints(tmp_path).steps() == [1]


def test_a_folder_that_is_no_folder_is_refused(tmp_path):
    (tmp_path / "checkpoints").write_text("")
    with pytest.raises(RunFolderError, match="checkpoints cannot be written"):
        Checkpoints(tmp_path / "checkpoints", KEEP_ALL)
