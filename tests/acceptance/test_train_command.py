"""`lmlab train` as a process of its own: killed, interrupted, started again."""

import json
import os
import random
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.training.conftest import PLUGIN, TINY, without_timing, write_documents

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


VARIANTS = {
    "as it is": ["experiment.log_every = 7"],
    "several steps per dispatch": ["experiment.steps_per_dispatch = 4; experiment.log_every = 8"],
    "microbatches and evaluations": [
        "experiment.microbatches = 2; experiment.log_every = 7",
        "experiment.evaluators = [@perplexity]; experiment.eval_every = 30",
    ],
    "packed documents": [
        "experiment.packing = 'first_fit'; experiment.log_every = 7; experiment.tokenizer = @bytes",
        "experiment.dataset = @text_files; text_files.train = 'text/*.txt'",
    ],
}


@pytest.mark.long
@pytest.mark.parametrize("variant", VARIANTS)
def test_a_run_that_is_killed_twenty_times_ends_at_the_same_bits(folder, variant):
    how = "; ".join(
        ["experiment.hooks = [@brake]; experiment.steps = 1200; checkpoints.every = 20", *VARIANTS[variant]]
    )
    if "text_files" in how:
        config = (folder / "tiny.gin").read_text().splitlines()
        config = [line for line in config if not line.startswith(("random_tokens", "experiment.dataset"))]
        (folder / "tiny.gin").write_text("\n".join(config))
        write_documents(folder)
    kill_at_random_moments(folder, how, kills=20, seed=time.time_ns())


@pytest.mark.long
def test_two_processes_that_are_interrupted_stop_at_the_same_step_and_go_on_as_one_would(folder):
    how = f"{SLOW_ENOUGH}; experiment.evaluators = [@perplexity]; experiment.eval_every = 80; brake.seconds = 0.02"

    def start_both():
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            meeting = f"127.0.0.1:{free.getsockname()[1]}"
        several = ("--set", how, "--run", "two", "--coordinator", meeting, "--num-processes", "2", "--process-id")
        return [start(folder, *several, str(i)) for i in range(2)]

    both = start_both()
    wait_until(lambda: lines(folder, "two") > 3, both[0])
    for child in both:
        child.send_signal(signal.SIGTERM)
    ended = [finish(child) for child in both]
    assert [code for code, _ in ended] == [75, 75], ended
    assert status(folder, "two")["state"] == "interrupted"
    assert status(folder, "two")["step"] % 7 == 0  # where the processes synchronise anyway
    ended = [finish(child) for child in start_both()]
    assert [code for code, _ in ended] == [0, 0], ended
    assert finish(start(folder, "--run", "one", "--set", how))[0] == 0
    two, one = records(folder, "two"), records(folder, "one")
    assert [(r["step"], r["phase"]) for r in two] == [(r["step"], r["phase"]) for r in one]
    losses = [[r["loss"] for r in run if r["phase"] == "train"] for run in (two, one)]
    assert losses[0] == pytest.approx(losses[1], abs=1e-5)


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
        if "Compiling" in line and "train_step" in line:
            break
    time.sleep(1)
    child.send_signal(signal.SIGTERM)
    code, errors = finish(child)
    assert code == 75, errors
    assert "stopped the run before its first step" in errors
    assert "Finished XLA compilation" not in errors
