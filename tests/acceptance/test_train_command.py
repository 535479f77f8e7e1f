"""`lmlab train` as a process of its own: killed, interrupted, started again."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.training.conftest import PLUGIN, TINY, without_timing

ROOT = Path(__file__).parents[2]
SLOW_ENOUGH = "experiment.hooks = [@brake]; experiment.steps = 240; checkpoints.every = 20; experiment.log_every = 7"


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "tiny.gin").write_text(TINY.replace("mesh.data = 1\n", "").replace("checkpoints.every = 0\n", ""))
    return tmp_path


def start(folder, *arguments, environment=None, **options):
    """`lmlab train tiny.gin ...`, on one device."""
    command = [sys.executable, "-m", "lmlab.cli.main", "train", "tiny.gin", "--plugin", PLUGIN, *arguments]
    variables = {**os.environ, "PYTHONPATH": str(ROOT), "XLA_FLAGS": "", **(environment or {})}
    return subprocess.Popen(
        command, cwd=folder, env=variables, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **options
    )


def finish(child):
    """Its exit code and standard error."""
    _, errors = child.communicate(timeout=300)
    return child.returncode, errors


def records(folder, run):
    return [json.loads(line) for line in (folder / run / "metrics.jsonl").read_text().splitlines()]


def arrays(folder, run):
    """Every leaf of the final state, by its checksum."""
    from lmlab.training.checkpoint import Checkpoints

    checkpoints = Checkpoints(folder / run / "checkpoints")
    note = checkpoints.note(checkpoints.steps()[-1])
    return note.step, note.arrays


def status(folder, run):
    path = folder / run / "status.json"
    return json.loads(path.read_text()) if path.exists() else {}


def wait_until(condition, child):
    while not condition():
        assert child.poll() is None, child.communicate()
        time.sleep(0.01)


def lines(folder, run):
    path = folder / run / "metrics.jsonl"
    return len(path.read_bytes().splitlines()) if path.exists() else 0


def kill_at_random_moments(folder, how, kills, seed):
    """A run that is killed again and again, and goes on each time, ends as one that was left alone."""
    assert finish(start(folder, "--run", "whole", "--set", how))[0] == 0
    moments = random.Random(seed)
    for _ in range(kills):
        child, before = start(folder, "--run", "killed", "--set", how), lines(folder, "killed")
        wait_until(lambda: lines(folder, "killed") != before, child)  # noqa: B023
        time.sleep(moments.uniform(0, 0.4))
        child.send_signal(signal.SIGKILL)
        child.communicate()
    code, errors = finish(start(folder, "--run", "killed", "--set", how))
    assert code == 0, errors
    assert status(folder, "killed")["state"] == "finished"
    assert without_timing(records(folder, "killed")) == without_timing(records(folder, "whole"))
    assert arrays(folder, "killed") == arrays(folder, "whole")


def test_a_run_that_is_killed_twice_ends_at_the_same_bits(folder):
    kill_at_random_moments(folder, SLOW_ENOUGH, kills=2, seed=time.time_ns())


@pytest.mark.long
@pytest.mark.parametrize(
    "how",
    [
        "",
        "experiment.steps_per_dispatch = 4; experiment.log_every = 8",
        "experiment.microbatches = 2; experiment.evaluators = [@perplexity]; experiment.eval_every = 30",
        "experiment.packing = 'first_fit'; experiment.dataset = @stdlib; experiment.tokenizer = @bytes",
    ],
)
def test_a_run_that_is_killed_twenty_times_ends_at_the_same_bits(folder, how):
    if "stdlib" in how:
        text = (folder / "tiny.gin").read_text()
        (folder / "tiny.gin").write_text("\n".join(x for x in text.splitlines() if not x.startswith("random_tokens")))
    kill_at_random_moments(folder, f"{SLOW_ENOUGH}; {how}; experiment.steps = 1200", kills=20, seed=time.time_ns())


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_during_training_saves_and_exits_with_75(folder, number):
    child = start(folder, "--run", "run", "--set", SLOW_ENOUGH)
    wait_until(lambda: lines(folder, "run") > 3, child)
    child.send_signal(number)
    code, errors = finish(child)
    assert code == 75
    assert f"lmlab: {number.name} stopped the run at step" in errors
    assert "Traceback" not in errors
    found = status(folder, "run")
    assert found["state"] == "interrupted"
    assert arrays(folder, "run")[0] == found["step"] < 240


def test_a_signal_during_compilation_exits_with_75_long_before_the_compiler_is_done(folder):
    cache = {"JAX_COMPILATION_CACHE_DIR": str(folder / "cache"), "JAX_LOG_COMPILES": "1"}
    child = start(folder, "--run", "run", "--set", "experiment.loss = @slow_to_compile", environment=cache)
    for line in child.stderr:
        if "ompiling" in line and "step" in line:
            break
    time.sleep(1)
    start_of_waiting = time.monotonic()
    child.send_signal(signal.SIGTERM)
    code, errors = finish(child)
    assert code == 75, errors
    assert "stopped the run before its first step" in errors
    assert time.monotonic() - start_of_waiting < 20  # the grace time of a cluster is 30 s
