"""`lmlab data prepare`: killed at any moment it goes on to the same store; runs on it train, evaluate and generate."""

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from lmlab.cli.main import main

EXPERIMENT = """
experiment.model = @lstm
experiment.loss = @autoregressive
experiment.dataset = @text_files
experiment.tokenizer = @characters
experiment.optimizer = @adamw
experiment.steps = 3
experiment.global_batch_size = 8
experiment.seq_len = 23
experiment.hooks = []
adamw.learning_rate = 1e-3
lstm.width = 13
lstm.layers = 1
text_files.train = 'corpus.txt'
text_files.documents = 'line'
"""
ON_STORE = "experiment.dataset = @prepared; experiment.tokenizer = None; prepared.path = 'store'"


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("a.gin").write_text(EXPERIMENT)
    Path("corpus.txt").write_text("".join(f"line {i} of é\n" for i in range(20_000)))
    return tmp_path


PREPARE = ["data", "prepare", "a.gin", "--shard-size", "0.1", "--workers", "1", "--out"]


def files(folder):
    return {path.name: path.read_bytes() for path in Path(folder).iterdir()}


def test_runs_on_a_store_learn_what_runs_on_the_corpus_learn(folder, capsys):
    assert main([*PREPARE, "store"]) == 0
    shown = capsys.readouterr().out.splitlines()
    assert shown[0].startswith("characters: ") and shown[-1].startswith("store: prepared in ")
    assert main(["train", "a.gin", "--run", "plain"]) == 0
    assert main(["train", "store.gin", "--run", "on_store"]) == 2  # there is no such file
    Path("store.gin").write_text("include 'a.gin'\n" + ON_STORE.replace("; ", "\n"))
    text_only = [line for line in EXPERIMENT.splitlines() if not line.startswith("text_files")]
    Path("a.gin").write_text("\n".join(text_only))
    assert main(["train", "store.gin", "--run", "on_store"]) == 0
    from lmlab.training.run_folder import RunFolder

    def numbers(run):
        taken = ("loss", "valid/bits_per_byte", "valid/nats_per_token", "step", "phase")
        return [{key: record[key] for key in taken if key in record} for record in RunFolder(Path(run)).records()]

    assert numbers("plain") == numbers("on_store")
    assert any("valid/bits_per_byte" in record for record in numbers("on_store"))
    capsys.readouterr()
    for run in ("plain", "on_store"):
        assert main(["generate", run, "--prompt", "line", "--length", "9"]) == 0
    one, other = capsys.readouterr().out.splitlines()
    assert one == other and one.startswith("line")


def test_a_dataset_and_a_tokenizer_are_enough(folder, capsys):
    chosen = (
        "experiment.dataset = @text_files; experiment.tokenizer = @bytes; "
        "text_files.train = 'corpus.txt'; text_files.documents = 'line'"
    )
    assert main(["data", "prepare", "--set", chosen, "--out", "store"]) == 0
    capsys.readouterr()
    assert main(["data", "show", "prepared", "--set", "prepared.path = 'store'", "--seq-len", "3"]) == 0
    rows = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert rows[0][:3] == ["row", "t", "token"] and [row[1] for row in rows[1:4]] == ["0", "1", "2"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--workers", "0"], "--workers 0: it must be above 0."),
        (["--splits", "valid"], "--splits valid: some of train, valid, test, and train among them."),
        (["--set", "experiment.tokenizer = None"], "experiment.tokenizer is not set"),
        (["--set", "text_files.trian = 'x'"], "has no parameter 'trian'"),
        (["--set", "experiment.dataset = @random_tokens"], "'random_tokens' yields ids: there is nothing to prepare"),
        (["--set", "experiment.max_examples = 1000000"], "experiment.max_examples = 1000000, but 'text_files' has"),
    ],
)
def test_mistakes_are_one_line_and_make_no_store(folder, capsys, words, message):
    assert main([*PREPARE, "store", *words]) == 2
    assert message in capsys.readouterr().err
    assert not Path("store/manifest.json").exists()


KILLED = """
import os, signal, sys
from pathlib import Path
from lmlab.cli.main import main
left = int(sys.argv[1])

def counted(real):
    def call(*args):
        global left
        left -= 1
        if left == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        return real(*args)
    return call

os.fsync, Path.replace = counted(os.fsync), counted(Path.replace)
sys.exit(main(sys.argv[2:]))
"""


def assert_goes_on(reference):
    """What a kill has left does not look finished, and the same command makes it whole."""
    if not Path("store/manifest.json").exists():
        show = ["data", "show", "prepared", "--set", "prepared.path = 'store'"]
        assert main(show) == 3
    assert main([*PREPARE, "store"]) == 0
    assert files("store") == reference


MOMENTS = [4, 11]  # before a file is flushed, and before one gets its name
LATER = [1, 9, 10, *range(12, 29), 30]


@pytest.mark.parametrize("moment", [*MOMENTS, *(pytest.param(n, marks=pytest.mark.long) for n in LATER)])
def test_killed_before_a_file_is_whole_it_goes_on_to_the_same_store(folder, moment):
    assert main([*PREPARE, "reference"]) == 0
    reference = files("reference")
    done = subprocess.run([sys.executable, "-c", KILLED, str(moment), *PREPARE, "store"], capture_output=True)
    assert done.returncode == -signal.SIGKILL, done.stderr
    assert not Path("store/manifest.json").exists()
    assert_goes_on(reference)


@pytest.mark.long
def test_killed_at_random_moments_with_workers_it_goes_on_and_leaves_no_process(folder):
    Path("corpus.txt").write_text("".join(f"line {i} of é\n" for i in range(400_000)))
    assert main([*PREPARE, "reference"]) == 0
    reference, kills = files("reference"), 0
    generator = random.Random(5)
    program = "import sys; from lmlab.cli.main import main; sys.exit(main(sys.argv[1:]))"
    words = [sys.executable, "-c", program, *PREPARE, "store", "--workers", "2"]
    for _ in range(12):
        child = subprocess.Popen(words, stdout=subprocess.DEVNULL, start_new_session=True)
        time.sleep(generator.uniform(0.5, 5))
        if child.poll() is None:
            child.kill()
            kills += 1
        child.wait()
        while _has_members(child.pid):  # the workers end with their parent
            time.sleep(0.1)
    assert kills
    assert_goes_on(reference)


def _has_members(group):
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    return True


@pytest.mark.long
def test_memory_does_not_grow_with_the_corpus(folder):
    peaks = []
    for lines in (200_000, 1_200_000):
        with Path("corpus.txt").open("w") as file:
            file.writelines(f"line {i} of é{'abcdefghi ' * 19}\n" for i in range(lines))
        program = "import sys; from lmlab.cli.main import main; sys.exit(main(sys.argv[1:]))"
        words = [sys.executable, "-c", program, "data", "prepare", "a.gin", "--workers", "2", "--out", f"store{lines}"]
        child = subprocess.Popen(words, stdout=subprocess.DEVNULL, start_new_session=True)
        peak = 0
        while child.poll() is None:
            peak = max(peak, _resident(child.pid))
            time.sleep(0.05)
        assert child.returncode == 0
        peaks.append(peak)
    assert peaks[1] - peaks[0] < 30e6, f"{peaks} bytes for corpora of 40 and 240 MB"


def _resident(group):
    """Bytes in memory of all processes of a group (pages that several share are counted for each)."""
    total = 0
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = path.read_text().rpartition(")")[2].split()
        except OSError:  # it has ended
            continue
        total += (int(fields[2]) == group) * int(fields[21]) * os.sysconf("SC_PAGE_SIZE")
    return total
