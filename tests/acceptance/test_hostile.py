"""What goes wrong outside the program: one clear line and an exit code each, and nothing that was saved is lost."""

import os
import resource
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import pytest

from lmlab.cli.main import main
from lmlab.data.loader import TrainBatches
from lmlab.training.run import Run
from tests.later import later
from tests.training.conftest import PLUGIN, TINY

ROOT = Path(__file__).parents[2]


CONFIG = TINY.replace("checkpoints.every = 0", "checkpoints.every = 3")


@dataclass(frozen=True)
class Done:
    """How a command ended, in this process or in its own."""

    returncode: int
    stdout: str
    stderr: str

    @property
    def said(self) -> str:
        """What it says at its end."""
        assert "Traceback" not in self.stderr, self.stderr
        return self.stderr[self.stderr.rindex("lmlab: ") :].rstrip("\n")


@pytest.fixture(scope="module")
def left_at_6(tmp_path_factory):
    """A run that was left at step 6 of 12, with checkpoints at 3 and 6."""
    folder = tmp_path_factory.mktemp("left")
    (folder / "tiny.gin").write_text(CONFIG)
    done = alone(folder, *TRAIN, "--set", "experiment.stop_at = 6")
    assert done.returncode == 0, done.stderr
    return folder


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "tiny.gin").write_text(CONFIG)
    return tmp_path


@pytest.fixture
def half(folder, left_at_6):
    """A copy of that run."""
    shutil.copytree(left_at_6 / "run", folder / "run")
    return folder


@pytest.fixture
def lmlab(own_catalogue, folder, capfd):
    """Runs a command in this process."""

    def run(*words):
        capfd.readouterr()
        code = main(words)
        return Done(code, *capfd.readouterr())

    return run


TRAIN = ("train", "tiny.gin", "--plugin", PLUGIN, "--run", "run")


def alone(folder, *words, before=(), **options):
    """Runs a command in a process of its own."""
    variables = {**os.environ, "PYTHONPATH": str(ROOT), "XLA_FLAGS": ""}
    command = [*before, sys.executable, "-m", "lmlab", *words]
    done = subprocess.run(command, cwd=folder, env=variables, capture_output=True, text=True, timeout=300, **options)
    return Done(done.returncode, done.stdout, done.stderr)


def assert_goes_on(lmlab, step=6):
    """The run can still be finished, from what was saved."""
    done = lmlab(*TRAIN)
    assert (done.returncode, f"going on from step {step}" in done.stderr) == (0, True), done.stderr


@pytest.mark.parametrize("bytes_left", [200, *later([20_000])])
def test_a_full_disk(folder, lmlab, bytes_left):
    large = "experiment.log_every = 1; bigram.width = 1999"  # a state that does not fit
    assert lmlab(*TRAIN, "--set", f"{large}; experiment.stop_at = 6").returncode == 0
    done = alone(
        folder, *TRAIN, "--set", large,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (bytes_left, bytes_left)),
    )  # fmt: skip
    assert done.returncode == 6, done.stderr
    assert "cannot be written: File too large. The file size limit is reached" in done.said
    assert "\n" not in done.said
    assert Run("run").steps() == [3, 6]
    done = lmlab(*TRAIN, "--set", large)
    assert (done.returncode, "going on from step 6" in done.stderr) == (0, True)


@pytest.mark.skipif(os.geteuid() == 0 and not shutil.which("setpriv"), reason="root may write everywhere")
def test_a_read_only_run_folder(half, lmlab):
    run = half / "run"
    for path in [*run.rglob("*"), run]:
        path.chmod(0o555 if path.is_dir() else 0o444)
    powerless = ("setpriv", "--ambient-caps=-all", "--bounding-set=-all", "--inh-caps=-all")
    done = alone(half, *TRAIN, before=powerless if os.geteuid() == 0 else ())
    for path in [run, *run.rglob("*")]:
        path.chmod(0o755 if path.is_dir() else 0o644)
    assert done.returncode == 6, done.stderr
    assert done.said.startswith("lmlab: run cannot be written: Permission denied. ")
    assert "--run DIR" in done.said
    assert_goes_on(lmlab)


def test_a_run_folder_below_a_file(folder, lmlab):
    (folder / "file").write_text("")
    done = lmlab(*TRAIN[:-1], "file/run")
    assert done.returncode == 6
    assert "file/run cannot be written: Not a directory" in done.said


def test_a_checkpoint_with_a_flipped_byte(half, lmlab):
    for path in (half / "run/checkpoints/6/state").rglob("d/*"):
        content = bytearray(path.read_bytes())
        content[len(content) // 2] ^= 0x10
        path.write_bytes(bytes(content))
    done = lmlab(*TRAIN)
    assert done.returncode == 4
    assert "run/checkpoints/6 is damaged" in done.said
    assert "--from-step 3" in done.said
    assert "\n" not in done.said
    assert lmlab(*TRAIN, "--from-step", "3").returncode == 0
    assert Run("run").status == "finished"


def test_a_truncated_metrics_file(half, lmlab):
    path = half / "run/metrics.jsonl"
    os.truncate(path, path.stat().st_size - 5)
    done = lmlab(*TRAIN)
    assert done.returncode == 6
    assert "run/metrics.jsonl was cut short" in done.said
    assert "\n" not in done.said
    assert lmlab(*TRAIN, "--from-step", "3").returncode == 0


def test_a_damaged_config(half, lmlab):
    path = half / "run/config.json"
    before = path.read_text()
    path.write_text(before[:100])
    done = lmlab(*TRAIN)
    assert done.returncode == 6
    assert done.said.startswith("lmlab: run/config.json cannot be read")
    path.write_text(before)
    assert_goes_on(lmlab)


def test_another_configuration(half, lmlab):
    done = lmlab(*TRAIN, "--set", "bigram.width = 7")
    assert done.returncode == 2
    assert "model.width: 5 there, 7 now" in done.said
    assert_goes_on(lmlab)


def test_a_killed_loader(half, lmlab, monkeypatch):
    batch = TrainBatches.batch

    def dies(self, k, rows=None):
        if k == 8:
            raise SystemExit
        return batch(self, k, rows)

    with monkeypatch.context() as patched:
        patched.setattr(TrainBatches, "batch", dies)
        done = lmlab(*TRAIN)
    assert done.returncode == 3
    assert done.said.startswith("lmlab: the loader thread died before it made batch 8")
    assert Run("run").status == "failed"
    assert_goes_on(lmlab, step=8)


def test_a_run_that_is_not_finite_and_its_replay(folder, lmlab):
    done = lmlab(*TRAIN, "--set", "experiment.loss = @log_of_zero; log_of_zero.first = 4; finite_guard.patience = 3")
    assert done.returncode == 5
    assert "from step 4 on" in done.said
    done = lmlab("replay", "run", "4")
    assert done.returncode == 5, done.stderr
    assert "first operation at fault: log gives inf, at" in done.stdout
    assert "bigram_plugin.py:" in done.stdout
    assert lmlab("replay", "run", "1").returncode == 0


def test_a_killed_process_leaves_no_lock_behind(folder, lmlab):
    child = subprocess.Popen(
        [sys.executable, "-m", "lmlab", *TRAIN, "--set", "experiment.hooks = [@brake]; brake.seconds = 600.0"],
        cwd=folder, env={**os.environ, "PYTHONPATH": str(ROOT), "XLA_FLAGS": ""}, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    while not (folder / "run/status.json").exists():
        assert child.poll() is None
        time.sleep(0.05)
    busy = lmlab(*TRAIN)
    assert busy.returncode == 6
    assert f"run is in use by process {child.pid}" in busy.said
    child.send_signal(signal.SIGKILL)
    child.wait()
    assert lmlab(*TRAIN).returncode == 0
