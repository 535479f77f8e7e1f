"""One process of a sweep: takes trials that nobody is at work on, one after the other, until there are none.

    python -m lmlab.sweeps.worker FOLDER [PROCESSOR ...]    # computing on these processors alone

Trials of one group share their compiled programs. A lock keeps a trial for one process, and goes with the process.
The worker ends when its standard input does, so that it does not outlive who started it.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
import traceback
from contextlib import ExitStack
from datetime import UTC, datetime

from lmlab.errors import ConfigError, DataError, Interrupted, LmlabError, NonFiniteError, is_out_of_memory
from lmlab.parallel.compiling import shared_programs
from lmlab.sweeps.folder import FAILED, Record, Status, SweepFolder
from lmlab.sweeps.shelf import Shelf
from lmlab.sweeps.together import Together, differing
from lmlab.training.compilation_cache import use_compilation_cache
from lmlab.training.loop import train
from lmlab.training.signals import StopSignals, leave


class Worker:
    """Runs trials of a sweep.

    Args:
      folder: the sweep's.
      stop: the signals to listen to.
    """

    def __init__(self, folder: SweepFolder, stop: StopSignals) -> None:
        self.folder = folder
        self.sweep = folder.read()
        self._stop = stop
        self._groups: dict[int, Together] = {}
        self._sharing = ExitStack()
        self._shelf = Shelf()

    def go(self) -> None:
        """Runs what is left; Interrupted where a signal came."""
        for trial in self.sweep["trials"]:
            if self._stop.requested or self._too_many_failed():
                break
            with self.folder.claimed(trial["id"]) as mine:
                if mine and self._left(trial["id"]):
                    self._run(trial)
        if self._stop.requested:
            raise Interrupted(f"{self._stop.requested} stopped the sweep; the same command goes on.")

    def _left(self, trial: str) -> bool:
        record = self.folder.record(trial)
        return record is None or not record.ended

    def _too_many_failed(self) -> bool:
        most = self.sweep["fail_after"]
        if most is None:
            return False
        records = (self.folder.record(trial["id"]) for trial in self.sweep["trials"])
        return sum(record is not None and record.status in FAILED for record in records) >= most

    def _run(self, trial: dict[str, object]) -> None:
        """One trial, and its record."""
        record = self._begun(trial)
        started = time.monotonic()
        print(f"--- trial {record.id}: {record.settings} seed {record.seed}", flush=True)
        try:
            resolved = self.folder.trial(record.id).resolved()
            group = self._group(int(trial["group"]))  # type: ignore[call-overload]
            train(resolved, self.folder.trial(record.id).path, stop=self._stop, make=group.make)
            record.status, record.message, record.traceback = "ok", None, None
        except Interrupted as error:
            record.status, record.message = "interrupted", str(error)
        except Exception as error:
            record.status, record.message = status_of(error), str(error).strip()
            record.traceback = traceback.format_exc()
            print(record.traceback, flush=True)
        record.attempts[-1] |= {"seconds": time.monotonic() - started, "status": record.status}
        self.folder.write_record(record)

    def _begun(self, trial: dict[str, object]) -> Record:
        found = self.folder.record(str(trial["id"]))
        record = found or Record(trial["id"], self.sweep["name"], trial["settings"], trial["seed"])  # type: ignore[arg-type]
        record.status, record.process = "running", os.getpid()
        now = datetime.now(UTC).isoformat(timespec="seconds")
        record.attempts.append({"started": now, "seconds": None, "status": "running"})
        self.folder.write_record(record)
        return record

    def _group(self, number: int) -> Together:
        """What the trials of a group share in this process."""
        if number not in self._groups:
            members = [trial["id"] for trial in self.sweep["trials"] if trial["group"] == number]
            specs = [self.folder.trial(member).resolved().spec for member in members]
            self._groups = {
                number: Together(differing(specs), self._shelf)
            }  # of one group at a time: programs take memory
            self._sharing.close()
            self._sharing.enter_context(shared_programs())
        return self._groups[number]


def status_of(error: Exception) -> Status:
    """How a trial ended that ended by an exception."""
    if is_out_of_memory(error):
        return "oom"
    kinds: list[tuple[type[LmlabError], Status]] = [
        (NonFiniteError, "nan"),
        (ConfigError, "config"),
        (DataError, "data"),
    ]
    return next((status for kind, status in kinds if isinstance(error, kind)), "failed")


def main(folder: str, *processors: str) -> int:
    """Runs what is left of a sweep; the exit code of an interruption where a signal came."""
    if processors:  # before the compiler looks how many threads are of use
        os.sched_setaffinity(0, map(int, processors))
    with StopSignals() as stop:
        threading.Thread(target=_end_with_the_input, daemon=True).start()
        use_compilation_cache()
        try:
            Worker(SweepFolder(folder), stop).go()
        except Interrupted as error:
            print(error, flush=True)
            if stop.abandoned:
                leave(error.exit_code)
            return error.exit_code
    return 0


def _end_with_the_input() -> None:
    while os.read(sys.stdin.fileno(), 1):  # nothing is ever written there
        pass
    os.kill(os.getpid(), signal.SIGTERM)


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
