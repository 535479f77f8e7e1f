"""Which processors the workers of a sweep compute on, and which trials one takes with it that dies."""

import os
import signal
import time
from datetime import UTC, datetime

import pytest
from sweep_folder import make_sweep

from lmlab.sweeps.folder import MACHINE, Record, SweepFolder
from lmlab.sweeps.launchers import local


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
    folder, said = SweepFolder(tmp_path), tmp_path / "pid.txt"
    folder.log.mkdir()
    monkeypatch.setattr(local, "worker_command", lambda *a: ["sh", "-c", f"echo $$ > {said}; exec sleep 600"])
    crew = local._Crew(folder, 1)
    crew.hire(1)
    while not (said.exists() and said.read_text().strip()):
        time.sleep(0.01)
    pid, now = int(said.read_text()), datetime.now(UTC).isoformat(timespec="seconds")
    older, its, living = (trial["id"] for trial in trials)
    for trial, started in ((older, "2026-01-01T00:00:00+00:00"), (its, now), (living, now)):
        attempt = {"started": started, "seconds": None, "status": "running"}
        folder.write_record(Record(trial, "made", {}, 0, process=pid, machine=MACHINE, attempts=[attempt]))
    with folder.claimed(living) as held:
        assert held
        os.kill(pid, signal.SIGKILL)
        while crew.working:
            records = crew.look()
    assert {trial: record.status for trial, record in records.items()} == {
        older: "running", its: "killed", living: "running"
    }  # fmt: skip
    assert "signal 9" in records[its].message
