"""Several processes train like one, and none of them hangs when another dies."""

import os
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from tiny_lm import NextToken, ragged_batches, tiny_model

from lmlab.errors import ConfigError, PeerLost
from lmlab.optim.optimizers import SGD
from lmlab.parallel.mesh import Mesh
from lmlab.parallel.processes import connect, is_cluster
from lmlab.training.randomness import INIT, stream_key
from lmlab.training.step import Recipe, make_init, make_step

TESTS = Path(__file__).parent.parent


def free_address():
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return f"127.0.0.1:{found.getsockname()[1]}"


def start(folder, *more, count=2):
    environment = {
        **os.environ,
        "XLA_FLAGS": "--xla_force_host_platform_device_count=4",
        "PYTHONPATH": os.pathsep.join([str(TESTS.parent), str(TESTS)]),
    }
    program, address = TESTS / "parallel" / "train_tiny.py", free_address()
    return [
        subprocess.Popen(
            [sys.executable, program, address, str(i), str(count), folder / f"{i}.npz", *more],
            env=environment,
            stderr=subprocess.PIPE,
            text=True,
        )
        for i in range(count)
    ]


@pytest.fixture
def started():
    children = []
    yield children
    for child in children:
        child.kill()
        child.wait()


def losses_alone():
    recipe = Recipe(tiny_model(), NextToken(), SGD(0.5, momentum=0.9), seed=3, clip_norm=0.7, ema=0.9)
    one, init, key, batches = Mesh(data=1), make_init(recipe), stream_key(3, INIT), ragged_batches(5, 16)
    step = one.compile(make_step(recipe), one.abstract(init, key), batches[0], donate=True)
    state, losses = one.initializer(init, key)(key), []
    for batch in batches:
        state, metrics = step(state, one.place(batch))
        losses.append(float(metrics["loss"][0] / metrics["loss"][1]))
    return losses


@pytest.mark.long
def test_two_processes_of_four_devices_train_like_one_device(tmp_path, started):
    started += start(tmp_path)
    errors = [child.communicate(timeout=600)[1] for child in started]
    assert [child.returncode for child in started] == [0, 0], errors
    found = [np.load(tmp_path / f"{i}.npz") for i in range(2)]
    expected = losses_alone()
    for layout in ("data", "fsdp", "tensor", "across"):
        for process in found:
            np.testing.assert_allclose(process[f"{layout}_losses"], expected, atol=1e-5, err_msg=layout)
    # Each reads its half; where the tensor axis spans both processes, each reads all rows.
    assert [list(process["fsdp_rows"]) for process in found] == [[0, 8], [8, 16]]
    assert [list(process["across_rows"]) for process in found] == [[0, 16], [0, 16]]


@pytest.mark.long
def test_a_process_whose_peer_was_killed_says_so_and_ends(tmp_path, started):
    started += start(tmp_path, "3")
    errors = [child.communicate(timeout=600)[1] for child in started]
    assert started[1].returncode == -9
    assert started[0].returncode == PeerLost.exit_code, errors[0]
    assert "lmlab: process 0 of 2: another process ended" in errors[0]
    assert "Traceback" not in errors[0]


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (("127.0.0.1:1", None, None), "--process-id and --num-processes not given"),
        ((None, 1, 2), "--coordinator not given"),
        (("127.0.0.1:1", 2, 2), "--process-id 2 is not one of 0 to 1"),
    ],
)
def test_processes_that_cannot_find_each_other_are_refused(arguments, problem):
    with pytest.raises(ConfigError, match=problem):
        connect(*arguments)


def test_one_process_alone_connects_to_nothing(monkeypatch):
    monkeypatch.setattr("jax.distributed.initialize", lambda *_: pytest.fail("connected"))
    connect()


def test_the_environment_may_name_the_coordinator(monkeypatch):
    seen = []
    monkeypatch.setattr("jax.distributed.initialize", lambda *arguments: seen.append(arguments))
    monkeypatch.setattr("lmlab.parallel.processes.watch_peers", lambda *_: lambda: None)
    for name, value in {"COORDINATOR_ADDRESS": "h:1", "PROCESS_ID": "1", "NUM_PROCESSES": "3"}.items():
        monkeypatch.setenv(f"JAX_{name}", value)
    connect()
    assert seen == [("h:1", 3, 1)]
    monkeypatch.setenv("JAX_PROCESS_ID", "one")
    with pytest.raises(ConfigError, match="JAX_PROCESS_ID is 'one'"):
        connect()


@pytest.mark.parametrize(
    ("environment", "several"),
    [
        ({}, False),
        ({"SLURM_STEP_NUM_TASKS": "1"}, False),
        ({"SLURM_NTASKS": "4", "SLURM_PROCID": "0"}, False),  # a batch script that did not use srun
        ({"SLURM_STEP_NUM_TASKS": "4"}, True),
        ({"OMPI_COMM_WORLD_SIZE": "2"}, True),
        ({"TPU_WORKER_HOSTNAMES": "one"}, False),
        ({"TPU_WORKER_HOSTNAMES": "one,two"}, True),
        ({"KUBERNETES_SERVICE_HOST": "10.0.0.1"}, False),
        ({"KUBERNETES_SERVICE_HOST": "10.0.0.1", "JOB_COMPLETION_INDEX": "0"}, True),
    ],
)
def test_a_cluster_is_known_by_its_environment(environment, several):
    assert is_cluster(environment) is several
