"""The folder of a sweep: what it consists of, the run folders of its trials, and the record of each.

sweep.json             axes, baseline, ladder, seeds and all trials: id, settings, seed, group
trials/ID/             an ordinary run folder
trials/ID/trial.json   what became of the trial: status, message, traceback, attempts
trials/ID/.trial.lock  held by the process that is at work on the trial
log/                   what the workers print
"""

from __future__ import annotations

import fcntl
import hashlib
import platform
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal, TextIO

from lmlab.errors import RunFolderError
from lmlab.sweeps.trials import Plan
from lmlab.training.files import read_json, replace_json, writing
from lmlab.training.run_folder import RunFolder

Status = Literal[
    "ok", "pruned", "running", "waiting", "interrupted", "oom", "nan", "killed", "config", "data", "failed"
]
FAILED = ("oom", "nan", "killed", "config", "data", "failed")
"""What a trial that was not finished ended by; it is tried again when that is asked for."""


def _machine() -> str:
    """A name for this machine until it is started again, which tells nobody what it is called."""
    boot = Path("/proc/sys/kernel/random/boot_id")
    known = boot.read_text().strip() if boot.exists() else platform.node()
    return hashlib.sha256(known.encode()).hexdigest()[:12]


MACHINE = _machine()

TRIES, PAUSE = 10, 0.02
"""How often, and after how many seconds again, a lock is asked for that somebody holds."""
_AGAIN = "Delete the file and run the sweep again: finished trials stay finished."


@dataclass
class Record:
    """What became of a trial.

    Attributes:
      status: `interrupted` and a `running` of which the process is gone are gone on with; `waiting` is at a rung of
        `halving`, and `pruned` was let go of there.
      message, traceback: of a failure.
      process, machine: which process is, or was last, at work: its id, and that of the machine since it was started.
      attempts: of each session: when it started, its seconds, and how it ended.
    """

    id: str
    sweep: str
    settings: dict[str, str]
    seed: int
    status: Status = "running"
    message: str | None = None
    traceback: str | None = None
    process: int | None = None
    machine: str | None = None
    attempts: list[dict[str, Any]] = field(default_factory=list)

    @property
    def ended(self) -> bool:
        """Whether the trial is finished, was let go of or has failed."""
        return self.status in ("ok", "pruned") or self.status in FAILED


class SweepFolder:
    """The paths and small files of a sweep; making one touches nothing.

    Args:
      path: the folder.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)

    @property
    def log(self) -> Path:
        """What the workers print."""
        return self.path / "log"

    def trial(self, trial: str) -> RunFolder:
        """The run folder of a trial."""
        return RunFolder(self.path / "trials" / trial)

    def write(self, plan: Plan, strategy: str = "sequential") -> None:
        """Writes what the sweep consists of, and the configurations of trials that have no folder yet.

        Args:
          plan: the sweep.
          strategy: of each worker; not `auto`.

        Raises:
          RunFolderError: something else is here, or it cannot be written.
        """
        if self.path.exists() and not (self.path / "sweep.json").exists() and any(self.path.iterdir()):
            raise RunFolderError(f"{self.path} is no folder of a sweep. Choose another one with --folder DIR.")
        with writing(self.path):
            self.log.mkdir(parents=True, exist_ok=True)
        for trial in plan.trials:
            folder = self.trial(trial.id)
            if not folder.exists():
                folder.write_config(trial.resolved)
        replace_json(
            self.path / "sweep.json",
            {
                "name": plan.name,
                "axes": list(plan.axes),
                "baseline": plan.baseline,
                "seeds": sorted({trial.seed for trial in plan.trials}),
                "over_compute": plan.ladder and {"keys": plan.ladder.keys, "held_out": plan.ladder.held_out},
                "fail_after": plan.sweep.fail_after,
                "strategy": strategy,
                "population": plan.sweep.population,
                "halving": None if plan.halving is None else asdict(plan.halving),
                "trials": [
                    {"id": trial.id, "settings": trial.settings, "seed": trial.seed, "group": trial.group}
                    for trial in plan.trials
                ],
            },
        )

    def read(self) -> dict[str, Any]:
        """What the sweep consists of, as `write` left it.

        Raises:
          RunFolderError: there is no sweep here, or its file is damaged.
        """
        path = self.path / "sweep.json"
        if not path.exists():
            raise RunFolderError(f"{self.path} is no folder of a sweep: it has no sweep.json.")
        return read_json(path, "Run the sweep again: it writes the file anew, and finished trials stay finished.")

    def record(self, trial: str) -> Record | None:
        """What became of a trial; None before its first attempt."""
        path = self.trial(trial).path / "trial.json"
        if not path.exists():
            return None
        found = read_json(path, _AGAIN)
        try:
            return Record(**found)
        except TypeError:
            raise RunFolderError(f"{path} is no record of a trial. {_AGAIN}") from None

    def write_record(self, record: Record) -> None:
        """Replaces the record of a trial."""
        replace_json(self.trial(record.id).path / "trial.json", asdict(record))

    @contextmanager
    def claimed(self, trial: str) -> Iterator[bool]:
        """Holds a trial for this process while it lives; False where another one holds it."""
        path = self.trial(trial).path / ".trial.lock"
        with writing(path):
            file = path.open("a")
        with file:
            yield _locked(file)


def _locked(file: TextIO) -> bool:
    """Takes the lock of a file; asks again, since who only looks whether somebody holds it does so for a moment."""
    for rest in reversed(range(TRIES)):
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if rest:
                time.sleep(PAUSE)
        else:
            return True
    return False
