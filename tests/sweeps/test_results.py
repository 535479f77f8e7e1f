"""Reading a sweep as it stands: whole, unfinished, or damaged."""

import json
import subprocess
import sys
import time

import pytest

from lmlab.cli.main import main
from lmlab.errors import RunFolderError
from lmlab.sweeps.results import read_results
from tests.sweeps.sweep_folder import make_sweep, trial_id

RATES = [{"sgd.rate": rate} for rate in ("0.1", "0.2", "0.3")]


def ends_at(settings, seed):
    return float(settings["sgd.rate"]) + seed / 100


@pytest.fixture
def sweep(tmp_path):
    make_sweep(tmp_path / "s", RATES, (0, 1), ends_at, baseline=RATES[0])
    return tmp_path / "s"


def test_a_whole_sweep_is_read_as_it_was_written(sweep):
    found = read_results(sweep)
    assert (found.name, found.axes, found.seeds, found.baseline) == ("made", ("sgd.rate",), (0, 1), RATES[0])
    assert found.counts == {"ok": 6} and len(found.trials) == 6
    trial = found.trials[3]
    assert (trial.settings, trial.seed, trial.seconds, trial.message) == (RATES[1], 1, 1.5, None)
    assert trial.final["valid/nats_per_token"] == pytest.approx(0.21) and trial.final["train/loss"] == pytest.approx(
        0.31
    )
    assert trial.curve("valid/nats_per_token") == ([5, 10, 15, 20], pytest.approx([0.96, 0.71, 0.46, 0.21]))
    assert trial.curve("train/loss") == ([5, 10, 15, 20], pytest.approx([1.06, 0.81, 0.56, 0.31]))
    assert trial.tokens == pytest.approx(4 * 0.5 * 700) and trial.tokens_per_second == pytest.approx(700)
    assert trial.parameters is None
    assert trial.configuration.kwargs["sgd.rate"] == "0.2"


@pytest.mark.parametrize("status", ["interrupted", "oom", "nan", "killed", "config", "data", "failed"])
def test_a_trial_without_a_result_is_shown_as_what_it_is(tmp_path, status):
    ids = {trial_id(RATES[1], 0): status, trial_id(RATES[2], 1): "pending"}
    make_sweep(tmp_path, RATES, (0, 1), ends_at, statuses=ids)
    found = {trial.id: trial for trial in read_results(tmp_path).trials}
    trial = found[trial_id(RATES[1], 0)]
    assert trial.status == status and trial.message == f"it ended as {status}"
    assert trial.failed == (status != "interrupted")
    assert found[trial_id(RATES[2], 1)].status == "pending" and not found[trial_id(RATES[2], 1)].failed
    assert sum(one.status == "ok" for one in found.values()) == 4


def test_a_running_trial_is_told_from_one_whose_process_is_gone(tmp_path):
    running = trial_id(RATES[1], 0)
    make_sweep(tmp_path, RATES, (0, 1), ends_at, statuses={running: "running"})

    def status():
        return next(trial.status for trial in read_results(tmp_path).trials if trial.id == running)

    assert status() == "left"  # nobody has ever held it
    hold = "import fcntl, sys; f = open(sys.argv[1], 'a'); fcntl.flock(f, fcntl.LOCK_EX); print(); sys.stdin.read()"
    lock = tmp_path / "trials" / running / ".trial.lock"
    command = [sys.executable, "-c", hold, str(lock)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as worker:
        worker.stdout.readline()
        assert status() == "running"
        worker.kill()
    assert status() == "left"


@pytest.mark.parametrize(
    ("file", "text"),
    [
        ("trial.json", "{"),
        ("trial.json", ""),
        ("trial.json", "[]"),
        ("trial.json", "{}"),
        ("trial.json", b"\xff\xfe"),
        ("metrics.jsonl", '{"step": 5, "phase"\nrubbish\n'),
        ("metrics.jsonl", "[]\n"),
        ("metrics.jsonl", b"\xff\xfe\n"),
    ],
)
def test_a_damaged_file_makes_a_damaged_trial_and_no_traceback(sweep, file, text):
    path = sweep / "trials" / trial_id(RATES[1], 1) / file
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    found = read_results(sweep)
    assert found.counts == {"ok": 5, "damaged": 1}
    [trial] = [trial for trial in found.trials if trial.status == "damaged"]
    assert file in trial.message and "\n" not in trial.message and not trial.final


def test_a_record_of_another_trial_is_not_taken_for_this_one(sweep):
    a, b = (sweep / "trials" / trial_id(RATES[k], 0) / "trial.json" for k in (0, 1))
    b.write_text(a.read_text())
    assert read_results(sweep).counts == {"ok": 5, "damaged": 1}


def test_a_file_that_cannot_be_read_is_no_end(sweep):
    path = sweep / "trials" / trial_id(RATES[0], 0) / "metrics.jsonl"
    path.unlink()
    path.mkdir()
    assert read_results(sweep).counts == {"ok": 5, "damaged": 1}


def test_a_run_that_is_at_work_may_end_in_half_a_line(sweep):
    path = sweep / "trials" / trial_id(RATES[0], 0) / "metrics.jsonl"
    path.write_text(path.read_text() + '{"step": 25, "pha')
    assert read_results(sweep).counts == {"ok": 6}


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "[]",
        "{}",
        '{"name": "x", "axes": [], "baseline": null, "seeds": [], "trials": [{"id": "../../etc/x"}]}',
    ],
)
def test_a_damaged_sweep_is_one_line_with_a_way_out(tmp_path, text):
    (tmp_path / "sweep.json").write_text(text)
    with pytest.raises(RunFolderError, match=r"sweep\.json.*lmlab sweep"):
        read_results(tmp_path)


def test_a_folder_that_is_no_sweep_is_refused(tmp_path):
    with pytest.raises(RunFolderError, match=r"it has no sweep\.json"):
        read_results(tmp_path)
    with pytest.raises(RunFolderError, match=r"it has no sweep\.json"):
        read_results(tmp_path / "nowhere")


def test_parameters_are_counted_in_the_newest_checkpoint_that_tells(sweep):
    checkpoints = sweep / "trials" / trial_id(RATES[0], 0) / "checkpoints"
    for step, note in ((9, {"arrays": {"params/a": [[7, 5], "f", 0]}}), (10, {"arrays": {"params/a": [[7, 3], "f", 0],
                       "params/b/c": [[], "f", 0], "opt_state/mu/a": [[7, 3], "f", 0]}}), (20, None)):  # fmt: skip
        (checkpoints / str(step) / "note").mkdir(parents=True)
        (checkpoints / str(step) / "note" / "metadata").write_text(json.dumps(note) if note else "{")
    assert read_results(sweep).trials[0].parameters == 22


@pytest.mark.long
def test_two_hundred_trials_are_read_and_reported(tmp_path, capsys):
    """Prints how long that takes; in one process, after the imports."""
    grid = [{"sgd.rate": str(rate / 10), "gpt.layers": str(layers)} for rate in range(1, 6) for layers in range(1, 6)]
    make_sweep(tmp_path, grid, range(8), ends_at, baseline=grid[0], steps=1000, every=10)
    main(["report", str(tmp_path), "--format", "csv"])
    assert len(capsys.readouterr().out.splitlines()) == 201
    for form in ("terminal", "html"):
        wall, cpu = time.perf_counter(), time.process_time()
        assert main(["report", str(tmp_path), "--format", form]) == 0
        took = f"{time.perf_counter() - wall:.2f} s ({time.process_time() - cpu:.2f} s of CPU)"
        out = capsys.readouterr().out
        with capsys.disabled():
            print(f"{form}: 200 trials of 200 records in {took}")
        assert "200 trials (200 ok)" in (out if form == "terminal" else (tmp_path / "report.html").read_text())
