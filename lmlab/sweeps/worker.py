"""One process of a sweep: takes trials that nobody is at work on, one or several at a time, until there are none.

    python -m lmlab.sweeps.worker FOLDER [PROCESSOR ...] [--alone] [--directory DIR] [--groups 0,2]

Trials of one group share what they read and their compiled programs. A lock keeps a trial for one process, and goes
with the process.
The worker ends when its standard input does, so that it does not outlive who started it, unless it is `--alone`.
"""

from __future__ import annotations

import argparse
import itertools
import os
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from lmlab.errors import ConfigError, DataError, Interrupted, LmlabError, NonFiniteError, is_out_of_memory
from lmlab.parallel.compiling import shared_programs
from lmlab.parallel.memory import keep_memory
from lmlab.sweeps.folder import FAILED, MACHINE, Record, Status, SweepFolder
from lmlab.sweeps.launchers.watching import ALONE, DIRECTORY, SECONDS_BETWEEN_LOOKS
from lmlab.sweeps.population import Lanes, take_turns
from lmlab.sweeps.race import Race
from lmlab.sweeps.shelf import Shelf
from lmlab.sweeps.together import Together, differing
from lmlab.training.compilation_cache import use_compilation_cache
from lmlab.training.loop import begin
from lmlab.training.program import Program
from lmlab.training.session import Session
from lmlab.training.signals import StopSignals, leave

Trial = Mapping[str, Any]
"""What sweep.json has of a trial."""


@dataclass
class _Attempt:
    """A trial at work: its record, the rung that it is on the way to, what to close after it, and when it began."""

    record: Record
    rung: int | None
    held: ExitStack = field(default_factory=ExitStack)
    started: float = field(default_factory=time.monotonic)


class Worker:
    """Runs trials of a sweep.

    Args:
      folder: the sweep's.
      stop: the signals to listen to.
      groups: numbers of those of which trials are taken; None: all.
    """

    def __init__(self, folder: SweepFolder, stop: StopSignals, groups: Sequence[int] | None = None) -> None:
        self.folder = folder
        self.sweep = folder.read()
        self._stop = stop
        self._chosen = groups
        self._groups: dict[int, Together] = {}
        self._sharing = ExitStack()
        self._shelf = Shelf()

    def go(self) -> None:
        """Runs what is left; Interrupted where a signal came."""
        trials = [one for one in self.sweep["trials"] if self._chosen is None or one["group"] in self._chosen]
        race = Race(self.folder, self.sweep["halving"])
        for rung in race.rungs:
            self._train(trials, rung, race)
            if self._over():
                break
            if rung is not None:
                trials = self._without_the_last(trials, rung, race)
        if self._stop.requested:
            raise Interrupted(f"{self._stop.requested} stopped the sweep; the same command goes on.")

    def _train(self, trials: Sequence[Trial], rung: int | None, race: Race) -> None:
        """Trains what is left until a rung, or the end; before it returns, others have come to the rung too."""
        while True:
            for portion in self._portions(trials):
                if self._over():
                    return
                with ExitStack() as claims:
                    free = [trial for trial in portion if claims.enter_context(self.folder.claimed(trial["id"]))]
                    left = [trial for trial in free if self._left(trial["id"])]
                    left = [trial for trial in left if rung is None or not race.reached(trial, rung)]
                    if left:
                        self._run(left, rung)
            if rung is None or self._over() or not race.undecided(trials, rung):
                return
            time.sleep(SECONDS_BETWEEN_LOOKS)

    def _without_the_last(self, trials: Sequence[Trial], rung: int, race: Race) -> list[Trial]:
        """Those that go on from a rung; the others are written to have ended there."""
        going_on = race.going_on(trials, rung)
        for trial in trials:
            if trial not in going_on:
                with self.folder.claimed(trial["id"]) as mine:
                    if mine:
                        race.let_go(trial, rung)
        return going_on

    def _portions(self, trials: Sequence[Trial]) -> Iterator[list[Trial]]:
        """The trials that this process trains at the same time: of one group, and no more than were asked for."""
        most = 1 if self.sweep["strategy"] == "sequential" else self.sweep["population"]
        for _, group in itertools.groupby(trials, lambda trial: trial["group"]):
            members = list(group)
            yield from (members[first : first + most] for first in range(0, len(members), most))

    def _left(self, trial: str) -> bool:
        record = self.folder.record(trial)
        return record is None or not record.ended

    def _over(self) -> bool:
        """Whether no further trial is to be started."""
        return self._stop.requested is not None or self._too_many_failed()

    def _too_many_failed(self) -> bool:
        most = self.sweep["fail_after"]
        if most is None:
            return False
        records = (self.folder.record(trial["id"]) for trial in self.sweep["trials"])
        return sum(record is not None and record.status in FAILED for record in records) >= most

    def _run(self, trials: Sequence[Trial], rung: int | None) -> None:
        """Trials of one group until a rung, or the end; and their records."""
        begun = {trial["id"]: _Attempt(self._begun(trial), rung) for trial in trials}
        group = self._group(trials[0]["group"])
        at_once = self.sweep["strategy"] == "vmap" and len(trials) > 1
        lanes = Lanes(group, len(trials))
        sessions: dict[str, Session] = {}
        for name, attempt in begun.items():
            try:
                session = self._begin(name, attempt, lanes.make if at_once else group.make)
            except Exception as error:
                self._end(attempt, error)
            else:
                if session is None:
                    self._end(attempt, None)
                else:
                    sessions[name] = session
        try:
            for name, outcome in lanes.train(sessions) if at_once else take_turns(sessions):
                self._end(begun.pop(name), outcome)
        except Exception as error:  # of what they have in common: no session's own
            for name in sessions.keys() & begun.keys():
                self._end(begun[name], error)

    def _begin(self, trial: str, attempt: _Attempt, make: Callable[..., Program]) -> Session | None:
        folder = self.folder.trial(trial)
        return begin(folder.resolved(), folder, self._stop, attempt.held, until=attempt.rung, make=make)

    def _end(self, attempt: _Attempt, error: Exception | None) -> None:
        """Writes how a trial ended, and closes its files."""
        attempt.held.close()
        record = attempt.record
        record.status, record.message, record.traceback = "ok" if attempt.rung is None else "waiting", None, None
        if isinstance(error, Interrupted):
            record.status, record.message = "interrupted", str(error)
        elif error is not None:
            record.status, record.message = status_of(error), str(error).strip()
            record.traceback = "".join(traceback.format_exception(error))
            print(record.traceback, flush=True)
        record.attempts[-1] |= {"seconds": time.monotonic() - attempt.started, "status": record.status}
        self.folder.write_record(record)

    def _begun(self, trial: Trial) -> Record:
        found = self.folder.record(trial["id"])
        record = found or Record(trial["id"], self.sweep["name"], trial["settings"], trial["seed"])
        record.status, record.process, record.machine = "running", os.getpid(), MACHINE
        now = datetime.now(UTC).isoformat(timespec="seconds")
        record.attempts.append({"started": now, "seconds": None, "status": "running"})
        self.folder.write_record(record)
        print(f"--- trial {record.id}: {record.settings} seed {record.seed}", flush=True)
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


def main(*words: str, before_leaving: Callable[[int], None] = lambda code: None) -> int:
    """Runs what is left of a sweep; the exit code of an interruption where a signal came.

    Args:
      words: see above.
      before_leaving: called with the exit code where a signal came: the process may end in here.
    """
    parser = argparse.ArgumentParser(prog="python -m lmlab.sweeps.worker")
    parser.add_argument("folder", help="of a sweep")
    parser.add_argument("processors", nargs="*", type=int, help="on which alone it computes (none: on all)")
    parser.add_argument(ALONE, action="store_true", help="do not end with the standard input")
    parser.add_argument(DIRECTORY, help="which the paths in the configuration are relative to")
    parser.add_argument("--groups", help="numbers of the groups of which trials are taken, with commas (none: all)")
    args = parser.parse_args(words)
    if args.directory is not None:
        if not Path(args.directory).is_dir():
            parser.error(f"{args.directory}, in which the sweep was started, is no directory here.")
        os.chdir(args.directory)
    if args.processors:  # before the compiler looks how many threads are of use
        os.sched_setaffinity(0, args.processors)
    groups = None if args.groups is None else [int(group) for group in args.groups.split(",")]
    keep_memory()
    with StopSignals() as stop:
        if not args.alone:
            threading.Thread(target=_end_with_the_input, daemon=True).start()
        use_compilation_cache()
        try:
            Worker(SweepFolder(args.folder), stop, groups).go()
        except Interrupted as error:
            print(error, flush=True)
            before_leaving(error.exit_code)
            if stop.abandoned:
                leave(error.exit_code)
            return error.exit_code
    return 0


def _end_with_the_input() -> None:
    while os.read(0, 1):  # nothing is ever written there
        pass
    os.kill(os.getpid(), signal.SIGTERM)


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
