"""A sweep on this machine: worker processes, watched by one that computes nothing."""

from __future__ import annotations

import os
import time
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import UTC, datetime
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess

from lmlab.errors import RunFolderError
from lmlab.registry import launchers
from lmlab.sweeps.folder import FAILED, MACHINE, Record, SweepFolder
from lmlab.sweeps.launchers.nursery import start
from lmlab.sweeps.launchers.watching import (
    GRACE,
    SECONDS_BETWEEN_LOOKS,
    Tell,
    interrupted,
    left,
    records_of,
)
from lmlab.training.signals import StopSignals

MEMORY, OF_THE_MEMORY = "XLA_PYTHON_CLIENT_MEM_FRACTION", 0.9
"""What jax takes of a GPU's memory when it begins, and what all workers together may."""


@launchers.register("local")
@dataclass(frozen=True)
class Local:
    """Processes on this machine, which end with the command that started them.

    A worker that dies takes the trials that it was at with it (`killed`), and another one goes on with the rest.
    """

    def run(self, folder: SweepFolder, workers: int, tell: Tell) -> None:
        """See `contracts.Launcher.run`."""
        with StopSignals() as stop, ExitStack() as closing:
            crew = _Crew(folder, workers)
            closing.callback(crew.dismiss)
            while True:
                records = crew.look()
                tell(records)
                if stop.requested:
                    crew.dismiss()
                    records = crew.look()
                    tell(records)
                    raise interrupted(folder, stop.requested, records)
                if not crew.working and (not left(records) or crew.satisfied):
                    return
                if not crew.satisfied:
                    crew.hire(len(left(records)))
                crew.wait(SECONDS_BETWEEN_LOOKS)


def shares(workers: int) -> list[tuple[int, ...]]:
    """For each worker, the numbers of the processors that it has for itself; none where all take turns on all.

    Workers that share all processors get into each other's way: two of them on two processors do together little more
    than one does.
    """
    processors = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []
    each = len(processors) // workers if workers > 1 else 0
    return [tuple(processors[each * worker : each * (worker + 1)]) for worker in range(workers)]


def _of_memory(workers: int) -> dict[str, str]:
    """The environment of one of several workers: each takes its part of a GPU's memory, unless one is said."""
    if workers == 1 or MEMORY in os.environ:
        return dict(os.environ)
    return {**os.environ, MEMORY: f"{OF_THE_MEMORY / workers:.3f}"}


@dataclass(frozen=True)
class _Worker:
    """A worker's process, what it would end without, and when it was started, as attempts tell it."""

    process: BaseProcess
    held: Connection
    since: str


class _Crew:
    """The workers of a sweep.

    Args:
      folder: of the sweep.
      most: how many may work at the same time.

    Attributes:
      satisfied: one of them has found nothing more to do.
    """

    def __init__(self, folder: SweepFolder, most: int) -> None:
        self._folder = folder
        self._shares = shares(most)
        self._workers: dict[int, _Worker] = {}  # by the number of their share
        self._hired = 0
        self._dismissed = False
        self.satisfied = False

    @property
    def working(self) -> int:
        """How many are at work."""
        return len(self._workers)

    def hire(self, useful: int) -> None:
        """Starts workers until there are as many as may be, or as are of use."""
        for number, processors in enumerate(self._shares):
            if len(self._workers) >= useful or number in self._workers:
                continue
            log = self._folder.log / f"worker-{self._hired}.txt"
            now = datetime.now(UTC).isoformat(timespec="seconds")
            words = (str(self._folder.path.resolve()), *map(str, processors))
            process, held = start(words, str(log), _of_memory(len(self._shares)))
            self._workers[number] = _Worker(process, held, now)
            self._hired += 1

    def wait(self, seconds: float) -> None:
        """Waits so long, or until a worker has ended."""
        ends = [worker.process.sentinel for worker in self._workers.values()]
        if ends:
            wait(ends, seconds)
        else:
            time.sleep(seconds)

    def look(self) -> dict[str, Record | None]:
        """The records of all trials, after those of workers that have died were written."""
        for number, worker in list(self._workers.items()):
            if worker.process.exitcode is None:
                continue
            del self._workers[number]
            worker.held.close()
            if worker.process.exitcode == 0:
                self.satisfied = True
            elif not self._dismissed:
                self._bury(worker)
        return records_of(self._folder)

    def dismiss(self) -> None:
        """Has all workers save and leave, and waits for them."""
        self._dismissed = True
        processes = [worker.process for worker in self._workers.values()]
        for process in processes:
            process.terminate()
        for process in processes:
            process.join(GRACE)
            if process.exitcode is None:
                process.kill()
                process.join()
        self.look()

    def _was_at(self, worker: _Worker, record: Record | None) -> bool:
        """Whether a record is of a trial that a worker was at: ids of processes are used again, so its time counts."""
        if record is None or record.status != "running" or not record.attempts:
            return False
        same = (record.machine, record.process) == (MACHINE, worker.process.pid)
        return same and record.attempts[-1]["started"] >= worker.since

    def _bury(self, worker: _Worker) -> None:
        """Writes what became of the trials that a dead worker was at."""
        code = worker.process.exitcode or 0
        how = f"signal {-code}" if code < 0 else f"exit code {code}"
        its = [trial for trial, record in records_of(self._folder).items() if self._was_at(worker, record)]
        for trial in its:
            with self._folder.claimed(trial) as mine:  # else a living process is at it, whatever the record says
                record = self._folder.record(trial)
                if not mine or record is None or not self._was_at(worker, record):
                    continue
                record.status, record.message = "killed", f"its process ended by {how}; see {self._folder.log}."
                record.attempts[-1] |= {"status": "killed"}
                self._folder.write_record(record)
        if not its:  # it died at no trial: another one would, too
            raise RunFolderError(
                f"a worker of the sweep ended by {how} before its first trial; see {self._folder.log}."
            )


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
