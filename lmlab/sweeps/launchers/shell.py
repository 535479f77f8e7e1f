"""Workers by a command line: printed for a scheduler that lmlab does not know, or run."""

from __future__ import annotations

import os
import shlex
import signal
import subprocess
import time
from contextlib import suppress
from dataclasses import dataclass
from typing import BinaryIO

from lmlab.errors import ConfigError, RunFolderError
from lmlab.registry import launchers
from lmlab.sweeps.folder import SweepFolder
from lmlab.sweeps.launchers.watching import (
    ALONE,
    GRACE,
    SECONDS_BETWEEN_LOOKS,
    Tell,
    records_of,
    watch,
    worker_text,
)


@launchers.register("shell")
@dataclass(frozen=True)
class Shell:
    """A line of a POSIX shell for each worker, printed, or run here.

    The folder must be seen under the same path where the line is run, on a file system whose locks are seen by all
    machines (NFS 4, Lustre and GPFS have such), and lmlab be installed there. A line may be run at any time, and again.

        shell.line = 'ssh node{number} {quoted}'
        shell.line = 'sbatch --gpus=1 --time=4:00:00 --wrap {quoted}'

    Args:
      line: with `{command}` for the worker's command, `{quoted}` for the same as one quoted word, and `{number}` for
        the number of the worker, from 0.
      run_here: runs the lines, and waits until all of them have returned; else they are printed. What they print is in
        `log/` of the sweep's folder.
    """

    line: str = "{command}"
    run_here: bool = False

    def run(self, folder: SweepFolder, workers: int, tell: Tell) -> None:
        """See `contracts.Launcher.run`."""
        command = worker_text(folder, ALONE)
        lines = [self._filled(command, number) for number in range(workers)]
        if not self.run_here:
            print("\n".join(lines))
            tell(records_of(folder))
            return
        running = []
        for number, line in enumerate(lines):
            with (folder.log / f"shell-{number}.txt").open("ab") as log:
                running.append(_started(line, log))
        watch(folder, tell, lambda: any(process.poll() is None for process in running), lambda: _end_with_all(running))
        if failed := [number for number, process in enumerate(running) if process.returncode]:
            number = failed[0]
            raise RunFolderError(f"shell.line: the line of worker {number} returned {running[number].returncode}.")

    def _filled(self, command: str, number: int) -> str:
        try:
            return self.line.format(command=command, quoted=shlex.quote(command), number=number)
        except (KeyError, IndexError, ValueError) as error:
            raise ConfigError(
                f"shell.line = '{self.line}': it may name {{command}}, {{quoted}} and {{number}}; other braces are "
                f"doubled ({error})."
            ) from None


def _started(line: str, log: BinaryIO) -> subprocess.Popen[bytes]:
    """A shell that runs a line; a session of its own, so that a signal reaches all that the line has started."""
    return subprocess.Popen(
        ["sh", "-c", line], stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
    )


def _end_with_all(running: list[subprocess.Popen[bytes]]) -> None:
    """Has the lines end with what they have started on this machine, and waits until that has saved."""
    until = time.monotonic() + GRACE
    for process in running:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGTERM)
    for process in running:
        process.wait()
        with suppress(ProcessLookupError):  # the shell is gone at once, and a worker only when it has saved
            while time.monotonic() < until:
                os.killpg(process.pid, 0)
                time.sleep(SECONDS_BETWEEN_LOOKS)
