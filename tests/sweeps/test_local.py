"""Which processors the workers of a sweep compute on, and which trials one takes with it that dies."""

import os
import signal
import time
from datetime import UTC, datetime
from multiprocessing import get_context
from pathlib import Path

import pytest
from sweep_folder import make_sweep

from lmlab.sweeps.folder import MACHINE, Record, SweepFolder
from lmlab.sweeps.launchers import local, nursery


def forked(function, *args):
    """A process as workers are started, and what a worker would end without."""
    nursery.prepare()
    its, held = get_context("forkserver").Pipe(duplex=False)
    process = get_context("forkserver").Process(target=function, args=args)
    process.start()
    its.close()
    return process, held


@pytest.mark.parametrize(
    ("processors", "workers", "expected"),
    [
        ({0, 1}, 2, [(0,), (1,)]),
        ({3, 5, 7, 11, 13}, 2, [(3, 5), (7, 11)]),
        ({0, 1}, 1, [()]),
        ({0, 1}, 3, [(), (), ()]),
    ],
)
def test_workers_have_processors_of_their_own_as_far_as_there_are_any(monkeypatch, processors, workers, expected):
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: processors)
    assert local.shares(workers) == expected


def test_a_dead_worker_takes_no_trial_with_it_that_an_older_or_a_living_process_is_at(tmp_path, monkeypatch):
    trials = make_sweep(tmp_path, [{"rate": "1"}], (0, 1, 2), lambda one, seed: 1.0)
    folder, (process, held) = SweepFolder(tmp_path), forked(time.sleep, 600)
    folder.log.mkdir()
    monkeypatch.setattr(local, "start", lambda *a: (process, held))
    crew = local._Crew(folder, 1)
    crew.hire(1)
    pid, now = process.pid, datetime.now(UTC).isoformat(timespec="seconds")
    older, its, living = (trial["id"] for trial in trials)
    for trial, started in ((older, "2026-01-01T00:00:00+00:00"), (its, now), (living, now)):
        attempt = {"started": started, "seconds": None, "status": "running"}
        folder.write_record(Record(trial, "made", {}, 0, process=pid, machine=MACHINE, attempts=[attempt]))
    with folder.claimed(living) as mine:
        assert mine
        os.kill(pid, signal.SIGKILL)
        while crew.working:
            crew.wait(0.1)
            records = crew.look()
    assert {trial: record.status for trial, record in records.items()} == {
        older: "running", its: "killed", living: "running"
    }  # fmt: skip
    assert "signal 9" in records[its].message


@pytest.mark.smoke  # other Pythons have other fork servers
def test_a_worker_has_the_folder_and_the_environment_of_who_starts_it_and_its_exit_code_is_told(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    broad = {}
    for columns in ("50", "200"):
        process, held = nursery.start(["--help"], f"{columns}.txt", {**os.environ, "COLUMNS": columns})
        process.join()
        held.close()
        assert process.exitcode == 0
        broad[columns] = max(map(len, Path(f"{columns}.txt").read_text().splitlines()))
    assert broad["50"] < 70 < broad["200"]
    process, held = nursery.start(["nowhere"], "log.txt", os.environ)
    process.join()
    held.close()
    assert process.exitcode == 1 and "nowhere" in Path("log.txt").read_text()


@pytest.mark.smoke  # other Pythons have other fork servers
def test_a_signal_to_the_whole_group_does_not_end_who_tells_the_exit_codes(tmp_path):
    said = tmp_path / "server.txt"
    first, held = forked(tell_server_and_sleep, said, 600)
    while not said.exists():
        time.sleep(0.01)
    os.kill(int(said.read_text()), signal.SIGTERM)
    second, other = forked(tell_server_and_sleep, tmp_path / "again.txt", 0)
    second.join()
    assert (tmp_path / "again.txt").read_text() == said.read_text()
    first.kill()
    first.join()
    assert (first.exitcode, second.exitcode) == (-signal.SIGKILL, 0)
    held.close()
    other.close()


def tell_server_and_sleep(said, seconds):
    """What the processes of the test above do."""
    part = said.with_suffix(".part")
    part.write_text(str(os.getppid()))
    part.rename(said)
    time.sleep(seconds)
