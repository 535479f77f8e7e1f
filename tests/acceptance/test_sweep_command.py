"""`lmlab sweep` and `lmlab status` as commands: every trial once, whatever is killed, and what has failed said."""

from __future__ import annotations

import json
import math
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from lmlab.cli.main import main
from tests.later import later

BASE = """
experiment.model = @elman
experiment.loss = @autoregressive
experiment.dataset = @random_tokens
experiment.optimizer = @sgd
experiment.steps = {steps}
experiment.global_batch_size = 3
experiment.seq_len = 5
experiment.hooks = []
experiment.writers = []
experiment.evaluators = []
experiment.log_every = 1
random_tokens.vocab = 11
elman.width = 4
elman.layers = 1
mesh.data = 1
checkpoints.every = 20
finite_guard.patience = 2
"""


def write(folder: Path, text: str, steps: int = 3) -> Path:
    path = folder / "mine.gin"
    path.write_text(BASE.format(steps=steps) + text)
    return path


def records(sweep: Path) -> dict[str, dict]:
    return {path.parent.name: json.loads(path.read_text()) for path in sweep.glob("trials/*/trial.json")}


def losses(sweep: Path) -> dict[str, list[float]]:
    lines = {path.parent.name: path.read_text().splitlines() for path in sweep.glob("trials/*/metrics.jsonl")}
    return {name: [json.loads(line)["loss"] for line in found] for name, found in lines.items()}


def start(file: Path, sweep: Path, *options: str) -> subprocess.Popen:
    command = [sys.executable, "-m", "lmlab", "sweep", str(file), "--folder", str(sweep), *options]
    return subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def test_trials_are_run_once_and_what_failed_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    # A rate of which every update overflows, and a dataset that is not there; both beside trials that are well.
    file = write(
        tmp_path,
        "sweep.axes = {'sgd.learning_rate': [0.1, 3e38], 'experiment.dataset': [@random_tokens, @text_files]}\n"
        "sweep.when = {'sgd.learning_rate': {'experiment.dataset': [@random_tokens]}}\nsweep.seeds = [0, 1]\n"
        "sgd.learning_rate = 0.2\nsgd.momentum = 0.9\n"
        f"text_files.train = '{tmp_path}/nothing.txt'\n",
        steps=6,
    )
    sweep = tmp_path / "sweep"
    assert main(["sweep", str(file), "--dry-run"]) == 0
    shown = capsys.readouterr().out
    assert "6 trials in 2 groups" in shown and not sweep.exists()

    assert main(["sweep", str(file), "--folder", str(sweep)]) == 1
    said = capsys.readouterr()
    statuses = {
        (record["settings"].get("sgd.learning_rate"), record["seed"]): record["status"]
        for record in records(sweep).values()
    }
    of_rate = {"0.1": "ok", "3e+38": "nan", None: "config"}  # the last: of the dataset that is text
    assert statuses == {(rate, seed): status for rate, status in of_rate.items() for seed in (0, 1)}
    assert "[6/6]" in said.err and "2 ok" in said.out and "Traceback" not in said.err
    failed = next(record for record in records(sweep).values() if record["status"] == "config")
    assert "tokenizer" in failed["message"] and "Traceback" in failed["traceback"]
    assert main(["status", str(sweep)]) == 0
    assert "6 trials: " in capsys.readouterr().out

    before = {path: path.stat().st_mtime_ns for path in sweep.glob("trials/*/metrics.jsonl")}
    assert main(["sweep", str(file), "--folder", str(sweep)]) == 1
    assert {path: path.stat().st_mtime_ns for path in before} == before
    assert all(len(record["attempts"]) == 1 for record in records(sweep).values())
    assert "6 of 6 trials have ended before" in capsys.readouterr().err

    assert main(["sweep", str(file), "--folder", str(sweep), "--retry", "--set", "sweep.fail_after = 1"]) == 1
    again = sorted(len(record["attempts"]) for record in records(sweep).values())
    assert again == [1, 1, 1, 1, 1, 2]


@pytest.mark.parametrize("strategy", ["vmap", *later(["interleaved"])])
def test_each_strategy_ends_where_the_others_do(tmp_path: Path, strategy: str) -> None:
    text = "sweep.axes = {'sgd.learning_rate': [0.1, 3e38, 0.3]}\nsweep.seeds = [0, 1]\nsgd.momentum = 0.9\n"
    file = write(tmp_path, text, steps=6)
    one, other = tmp_path / "sequential", tmp_path / strategy
    how = ["--set", f"sweep.strategy = '{strategy}'", "--set", "sweep.population = 4"]
    assert main(["sweep", str(file), "--folder", str(one)]) == 1
    assert main(["sweep", str(file), "--folder", str(other), *how]) == 1
    assert records(one).keys() == records(other).keys()
    for trial, record in records(one).items():
        assert record["status"] == records(other)[trial]["status"]
        here, there = ([math.nan if x is None else x for x in losses(sweep)[trial]] for sweep in (one, other))
        assert there == pytest.approx(here, rel=1e-5, nan_ok=True)
    assert sorted(record["status"] for record in records(one).values()) == ["nan"] * 2 + ["ok"] * 4
    said = (other / "log" / "worker-0.txt").read_text()
    assert "compiled for itself" not in said


@pytest.mark.parametrize(
    ("text", "options", "code", "message"),
    [
        ("", (), 2, "is of no sweep"),
        ("sweep.seeds = [0]\nsgd.learning_rate = 0.1", ("--workers", "0"), 2, "--workers 0: it must be at least 1"),
        ("sweep.seeds = [0]\nsgd.learning_rate = 0.1", ("--folder", "{tmp}"), 6, "is no folder of a sweep"),
        ("sweep.axes = {'sgd.learning_rate': 0.1}", (), 2, "sweep.axes wants"),
    ],
)
def test_what_cannot_be_run_is_one_message(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], text: str, options: tuple[str, ...], code: int, message: str
) -> None:
    file = write(tmp_path, text)
    given = [option.replace("{tmp}", str(tmp_path)) for option in options]
    assert main(["sweep", str(file), *given]) == code
    said = capsys.readouterr().err
    assert message in said and "Traceback" not in said
    assert main(["status", str(tmp_path)]) == 6
    assert "it has no sweep.json" in capsys.readouterr().err


def test_a_dry_run_says_what_cannot_be_trained(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = write(tmp_path, "sweep.axes = {'experiment.loss': [@autoregressive, @mlm]}\nsgd.learning_rate = 0.1")
    assert main(["sweep", str(file), "--dry-run"]) == 1
    said = capsys.readouterr().out
    assert "1 of them cannot be trained" in said and "'mlm' needs" in said


@pytest.mark.parametrize(
    "kills", [(signal.SIGKILL,), pytest.param((signal.SIGKILL, signal.SIGINT), marks=pytest.mark.long)]
)
def test_a_sweep_that_is_killed_ends_as_one_that_was_not(tmp_path: Path, kills: tuple[signal.Signals, ...]) -> None:
    file = write(
        tmp_path, f"sweep.axes = {{'sgd.learning_rate': [0.1, 0.2]}}\nsweep.seeds = {[*range(len(kills))]}", 60
    )
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    assert main(["sweep", str(file), "--folder", str(whole)]) == 0
    for number, how in enumerate(kills):
        process = start(file, killed, "--workers", "2")
        while len(losses(killed)) <= number and process.poll() is None:
            time.sleep(0.01)
        process.send_signal(how)
        _, said = process.communicate()
        assert process.returncode in (-signal.SIGKILL, 75, 130, 0), said  # 130: before it had begun
    last = start(file, killed, "--workers", "2")
    _, said = last.communicate()
    assert last.returncode == 0, said
    assert losses(killed) == losses(whole)
    assert all(record["status"] == "ok" for record in records(killed).values())


@pytest.mark.long
def test_a_worker_that_dies_takes_one_trial_with_it(tmp_path: Path) -> None:
    file = write(tmp_path, "sweep.axes = {'sgd.learning_rate': [0.1, 0.2]}", steps=4000)
    sweep = tmp_path / "sweep"
    process = start(file, sweep, "--workers", "1", "--set", "experiment.log_every = 20; checkpoints.every = 0")
    while not losses(sweep) and process.poll() is None:
        time.sleep(0.01)
    (record,) = records(sweep).values()
    os.kill(record["process"], signal.SIGKILL)
    _, said = process.communicate()
    assert process.returncode == 1, said
    found = records(sweep)
    assert found[record["id"]]["status"] == "killed" and "signal 9" in found[record["id"]]["message"]
    assert sorted(one["status"] for one in found.values()) == ["killed", "ok"]


@pytest.mark.long
@pytest.mark.parametrize("strategy", ["sequential", "interleaved"])
def test_twenty_kills_change_nothing(tmp_path: Path, strategy: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Kills at random times the command, its fork server or a worker; status and report are asked for at each."""
    axes = "sweep.axes = {'sgd.learning_rate': [0.1, 0.2, 3e38], 'elman.layers': [1, 2]}\nsweep.seeds = [0, 1]\n"
    axes += f"sgd.momentum = 0.9\nsweep.population = 2\nsweep.strategy = '{strategy}'\n"
    file = write(tmp_path, axes, steps=3000)
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    assert main(["sweep", str(file), "--folder", str(whole), "--workers", "2"]) == 1  # four of them diverge
    expected = {trial: record["status"] for trial, record in records(whole).items()}
    assert sorted(expected.values()) == ["nan"] * 4 + ["ok"] * 8
    chance, deaths = random.Random(1), 0
    while deaths < 20:
        process = start(file, killed, "--workers", "2", "--retry")
        victims: list[int] = []
        while not victims and process.poll() is None:
            time.sleep(0.1)
            victims = workers_of(process.pid)
        time.sleep(chance.uniform(0, 9))
        victim = chance.choice([process.pid, *children_of(process.pid), *workers_of(process.pid)])
        if process.poll() is None:
            os.kill(victim, signal.SIGKILL)
            deaths += 1
        if victim != process.pid:
            time.sleep(chance.uniform(0, 2))
            process.kill()
        process.communicate()
        assert main(["status", str(killed)]) == 0
        if any(record["status"] == "ok" for record in records(killed).values()):
            assert main(["report", str(killed)]) == 0
        capsys.readouterr()
        if all(record["status"] in ("ok", "nan") for record in records(killed).values()) and len(records(killed)) == 12:
            break
    last = start(file, killed, "--workers", "2", "--retry")
    _, said = last.communicate()
    assert last.returncode == 1, said
    assert deaths == 20, f"all was done after {deaths} kills: let it have more steps"
    assert {trial: record["status"] for trial, record in records(killed).items()} == expected
    assert as_far_as_finite(losses(killed)) == as_far_as_finite(losses(whole))


def as_far_as_finite(losses: dict[str, list[float]]) -> dict[str, list[float]]:
    """Without the skipped steps at the end: with --retry, a trial that had diverged tries one more each time."""
    kept = {name: sum(loss is not None for loss in of) for name, of in losses.items()}
    assert all(None not in of[: kept[name]] for name, of in losses.items())
    return {name: of[: kept[name]] for name, of in losses.items()}


def workers_of(command: int) -> list[int]:
    """The worker processes of a sweep: they are forked by one that the command started for that."""
    return [worker for child in children_of(command) for worker in children_of(child)]


def children_of(parent: int) -> list[int]:
    found = Path(f"/proc/{parent}/task/{parent}/children")
    try:
        return [int(child) for child in found.read_text().split()]
    except OSError:  # it has ended
        return []
