"""Workers started in other ways than by the command itself: the folder is the same, and any of them goes on with it."""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from lmlab.cli.main import main

FILE = """
experiment.model = @elman
experiment.loss = @autoregressive
experiment.dataset = @random_tokens
experiment.optimizer = @sgd
experiment.steps = {steps}
experiment.global_batch_size = 3
experiment.seq_len = 5
experiment.hooks = []
random_tokens.vocab = 11
elman.width = 4
mesh.data = 1
checkpoints.every = 0
sweep.axes = {{'elman.layers': [1, 2], 'sgd.learning_rate': [0.1, 0.3]}}
"""


@pytest.fixture
def sweep(tmp_path):
    (tmp_path / "mine.gin").write_text(FILE.format(steps=3))
    return [str(tmp_path / "mine.gin"), "--folder", str(tmp_path / "sweep")]


def records(sweep):
    return [json.loads(path.read_text()) for path in sorted(Path(sweep[-1]).glob("trials/*/trial.json"))]


def by_submitit(sweep, *options):
    """In its own process: importing submitit configures logging, at which absl closes the stderr of pytest."""
    if importlib.util.find_spec("submitit") is None:
        pytest.skip("submitit is not installed")
    command = [sys.executable, "-m", "lmlab", "sweep", *sweep, "--launcher", "slurm", *options]
    subprocess.run(command, check=True)


def test_a_line_for_each_worker_is_printed_and_begins_where_others_have_left_off(sweep, capsys):
    line = "shell.line = 'on node{number}: {quoted}'"
    assert main(["sweep", *sweep, "--launcher", "shell", "--workers", "2", "--set", line]) == 1
    printed = capsys.readouterr().out.splitlines()
    assert [text.split(":")[0] for text in printed[:2]] == ["on node0", "on node1"]
    assert printed[0].endswith("--alone'") and printed[2].startswith("4 pending")
    assert records(sweep) == []

    # One group by a shell, the other one by jobs of submitit: each trial once.
    here = ["--set", "shell.run_here = True", "--set", "shell.line = '{command} --groups 1'"]
    assert main(["sweep", *sweep, "--launcher", "shell", *here]) == 1
    assert [record["status"] for record in records(sweep)] == ["ok", "ok"]
    by_submitit(sweep, "--set", "slurm.cluster = 'local'")
    assert [(record["status"], len(record["attempts"])) for record in records(sweep)] == [("ok", 1)] * 4


def test_a_line_that_begins_elsewhere_reads_what_the_files_name(sweep, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "text.txt").write_text("to be or not to be\n" * 99)
    text = ["--set", "experiment.dataset = @text_files; text_files.train = 'text.txt'"]
    text += ["--set", "text_files.split_by = 'position'; experiment.tokenizer = @bytes"]
    text += ["--set", "sweep.axes = {}; sweep.seeds = [0]; sgd.learning_rate = 0.1; experiment.evaluators = []"]
    (tmp_path / "mine.gin").write_text(
        "".join(line for line in FILE.format(steps=3).splitlines(True) if "random_tokens.vocab" not in line)
    )
    line = "shell.line = 'cd elsewhere && {command}'; shell.run_here = True"
    assert main(["sweep", *sweep, *text, "--launcher", "shell", "--set", line]) == 0
    assert [record["status"] for record in records(sweep)] == ["ok"]


@pytest.mark.long
def test_a_signal_ends_what_a_line_has_started_and_its_trials_are_saved(sweep, tmp_path):
    (tmp_path / "mine.gin").write_text(FILE.format(steps=100_000) + "experiment.writers = []\n")
    line = "shell.line = '{command}; true'; shell.run_here = True; experiment.log_every = 10"
    process = subprocess.Popen(
        [sys.executable, "-m", "lmlab", "sweep", *sweep, "--launcher", "shell", "--set", line],
        stderr=subprocess.DEVNULL,
    )
    while not list(tmp_path.glob("sweep/trials/*/metrics.jsonl")) and process.poll() is None:
        time.sleep(0.05)
    process.send_signal(signal.SIGTERM)
    assert process.wait() == 75
    (record,) = records(sweep)
    assert record["status"] == "interrupted"
    with pytest.raises(ProcessLookupError):
        os.kill(record["process"], 0)


@pytest.mark.parametrize(
    ("options", "code", "message"),
    [
        (("shell", "--set", "shell.line = 'ssh {host} {command}'"), 2, "it may name {command}"),
        (("shell", "--set", "shell.line = 'exit 3'", "--set", "shell.run_here = True"), 6, "worker 0 returned 3"),
        (("shel",), 2, "shell"),
        (("gpt",), 2, "gpt"),
    ],
)
def test_what_cannot_be_launched_is_said_in_one_line(sweep, capsys, options, code, message):
    assert main(["sweep", *sweep, "--launcher", *options]) == code
    error = capsys.readouterr().err
    assert message in error and "Traceback" not in error


def _slurm_is_up():
    if shutil.which("sinfo") is None:
        return False
    return subprocess.run(["sinfo", "-h"], capture_output=True, check=False).returncode == 0


@pytest.mark.long
@pytest.mark.skipif(not _slurm_is_up(), reason="no Slurm runs here")
def test_slurm_runs_an_array_of_workers(sweep):
    by_submitit(sweep, "--workers", "2")
    assert [record["status"] for record in records(sweep)] == ["ok"] * 4


@pytest.mark.long
def test_ray_runs_a_task_for_each_group_and_one_that_is_lost_again(sweep, tmp_path):
    pytest.importorskip("ray")
    plugin = tmp_path / "deadly.py"
    plugin.write_text(  # kills its process at its first call
        "import os, signal\nfrom dataclasses import dataclass\nfrom lmlab.registry import hooks\n"
        "@hooks.register('deadly')\n@dataclass(frozen=True)\nclass Deadly:\n    '''.'''\n    marker: str\n"
        "    def bind(self, run):\n        def hook(step, state, last):\n"
        "            if step == 2 and not os.path.exists(self.marker):\n"
        "                open(self.marker, 'w').close()\n                os.kill(os.getpid(), signal.SIGKILL)\n"
        "        return hook\n"
    )
    deadly = ["--plugin", str(plugin), "--set", "experiment.hooks = [@deadly]"]
    deadly += ["--set", f"deadly.marker = '{tmp_path}/done'"]
    assert main(["sweep", *sweep, *deadly, "--launcher", "ray"]) == 0
    assert (tmp_path / "done").exists()
    assert [record["status"] for record in records(sweep)] == ["ok"] * 4
