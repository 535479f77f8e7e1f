"""A sweep on this machine: worker processes, watched by one that computes nothing."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import ExitStack

from lmlab.errors import Interrupted, RunFolderError
from lmlab.sweeps.folder import FAILED, Record, SweepFolder
from lmlab.training.signals import StopSignals

SECONDS_BETWEEN_LOOKS = 0.3
GRACE = 120.0
"""Seconds that workers have to save their state after a signal."""

Tell = Callable[[dict[str, Record | None]], None]
"""Called again and again with the records of all trials by id."""


def run_locally(folder: SweepFolder, workers: int, tell: Tell) -> None:
    """Runs what is left of a sweep, in so many processes.

    A worker that dies takes the trial that it was at with it (`killed`), and another one goes on with the rest.

    Raises:
      Interrupted: a signal came; all trials' states are saved.
    """
    with StopSignals() as stop, ExitStack() as closing:
        crew = _Crew(folder)
        closing.callback(crew.dismiss)
        while True:
            records = crew.look()
            tell(records)
            left = [trial for trial, record in records.items() if record is None or not record.ended]
            if stop.requested:
                crew.dismiss()
                tell(crew.look())
                raise Interrupted(
                    f"{stop.requested} stopped the sweep; {len(left)} of {len(records)} trials are left. The same "
                    f"command goes on with {folder.path}."
                )
            if not crew.working and (not left or crew.satisfied):
                return
            if not crew.satisfied:
                crew.hire(min(workers, len(left)))
            time.sleep(SECONDS_BETWEEN_LOOKS)


class _Crew:
    """The workers of a sweep.

    Attributes:
      satisfied: one of them has found nothing more to do.
    """

    def __init__(self, folder: SweepFolder) -> None:
        self._folder = folder
        self._ids = [trial["id"] for trial in folder.read()["trials"]]
        self._workers: list[subprocess.Popen[bytes]] = []
        self._hired = 0
        self._dismissed = False
        self.satisfied = False

    @property
    def working(self) -> int:
        """How many are at work."""
        return len(self._workers)

    def hire(self, number: int) -> None:
        """Starts workers until there are so many."""
        while len(self._workers) < number:
            path = self._folder.log / f"worker-{self._hired}.txt"
            with path.open("ab") as log:
                command = [sys.executable, "-m", "lmlab.sweeps.worker", str(self._folder.path)]
                self._workers.append(subprocess.Popen(command, stdin=subprocess.PIPE, stdout=log, stderr=log))
            self._hired += 1

    def look(self) -> dict[str, Record | None]:
        """The records of all trials, after those of workers that have died were written."""
        for worker in [worker for worker in self._workers if worker.poll() is not None]:
            self._workers.remove(worker)
            if worker.stdin is not None:
                worker.stdin.close()
            if worker.returncode == 0:
                self.satisfied = True
            elif not self._dismissed:
                self._bury(worker)
        return {trial: self._folder.record(trial) for trial in self._ids}

    def dismiss(self) -> None:
        """Has all workers save and leave, and waits for them."""
        self._dismissed = True
        for worker in self._workers:
            worker.terminate()
        for worker in self._workers:
            try:
                worker.wait(GRACE)
            except subprocess.TimeoutExpired:
                worker.kill()
                worker.wait()
        self.look()

    def _bury(self, worker: subprocess.Popen[bytes]) -> None:
        """Writes what became of the trial that a dead worker was at."""
        how = f"signal {-worker.returncode}" if worker.returncode < 0 else f"exit code {worker.returncode}"
        for trial in self._ids:
            record = self._folder.record(trial)
            if record is not None and record.status == "running" and record.process == worker.pid:
                record.status, record.message = "killed", f"its process ended by {how}; see {self._folder.log}."
                record.attempts[-1] |= {"status": "killed"}
                self._folder.write_record(record)
                return
        # It died at no trial: another one would, too.
        raise RunFolderError(f"a worker of the sweep ended by {how} before its first trial; see {self._folder.log}.")


def try_again(folder: SweepFolder) -> int:
    """Has trials that failed count as interrupted; how many these are."""
    again = 0
    for trial in folder.read()["trials"]:
        with folder.claimed(trial["id"]) as mine:
            record = folder.record(trial["id"]) if mine else None
            if record is not None and record.status in FAILED:
                record.status = "interrupted"
                folder.write_record(record)
                again += 1
    return again
