"""What all launchers share: the command of a worker, and looking on until nothing is left."""

from __future__ import annotations

import shlex
import sys
import time
from collections.abc import Callable
from pathlib import Path

from lmlab.errors import Interrupted
from lmlab.sweeps.folder import Record, SweepFolder
from lmlab.training.signals import StopSignals

SECONDS_BETWEEN_LOOKS = 0.3

GRACE = 120.0
"""Seconds that workers have to save their state after a signal."""

ALONE = "--alone"
"""Tells a worker that nobody who started it holds its standard input open."""

DIRECTORY = "--directory"
"""Tells a worker that begins somewhere else which working directory the paths in the configuration are relative to."""

Tell = Callable[[dict[str, Record | None]], None]
"""Called again and again with the records of all trials by id."""


def worker_command(folder: SweepFolder, *more: str) -> list[str]:
    """What starts a worker, as a list of arguments."""
    return [sys.executable, "-m", "lmlab.sweeps.worker", str(folder.path.resolve()), *more]


def worker_text(folder: SweepFolder, *more: str) -> str:
    """What starts a worker in any working directory, as a shell reads it."""
    return shlex.join(worker_command(folder, DIRECTORY, str(Path.cwd()), *more))


def records_of(folder: SweepFolder) -> dict[str, Record | None]:
    """The records of all trials, by id."""
    return {trial["id"]: folder.record(trial["id"]) for trial in folder.read()["trials"]}


def left(records: dict[str, Record | None]) -> list[str]:
    """The trials that have not ended."""
    return [trial for trial, record in records.items() if record is None or not record.ended]


def interrupted(folder: SweepFolder, by: str, records: dict[str, Record | None]) -> Interrupted:
    """What is said where a signal stops a sweep."""
    return Interrupted(
        f"{by} stopped the sweep; {len(left(records))} of {len(records)} trials are left. The same command goes on "
        f"with {folder.path}."
    )


def wait_for_locks(folder: SweepFolder) -> None:
    """Waits until nobody holds a trial, as long as workers are given to save."""
    until = time.monotonic() + GRACE
    for trial in folder.read()["trials"]:
        free = False
        while not free and time.monotonic() < until:
            with folder.claimed(trial["id"]) as mine:
                free = mine
            if not free:
                time.sleep(SECONDS_BETWEEN_LOOKS)


def watch(folder: SweepFolder, tell: Tell, working: Callable[[], bool], dismiss: Callable[[], None]) -> None:
    """Tells how it goes until nobody works any more.

    Args:
      folder: of the sweep.
      tell: see there.
      working: whether somebody may still be at work.
      dismiss: has all save and leave, and waits for them.

    Raises:
      Interrupted: a signal came; all trials' states are saved.
    """
    with StopSignals() as stop:
        try:
            going = True
            while going and not stop.requested:
                going = working()  # asked before the look, so that the last word of who has just left is read
                tell(records_of(folder))
                if going:
                    time.sleep(SECONDS_BETWEEN_LOOKS)
        finally:
            if stop.requested or going:
                dismiss()
        if stop.requested:
            records = records_of(folder)
            tell(records)
            raise interrupted(folder, stop.requested, records)
