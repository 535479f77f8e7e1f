"""Workers by a command line: printed for a scheduler that lmlab does not know, or run."""

from __future__ import annotations

import shlex
import subprocess
from dataclasses import dataclass

from lmlab.errors import ConfigError, RunFolderError
from lmlab.registry import launchers
from lmlab.sweeps.folder import SweepFolder
from lmlab.sweeps.launchers.watching import ALONE, Tell, records_of, watch, worker_text


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
                running.append(subprocess.Popen(["sh", "-c", line], stdin=subprocess.DEVNULL, stdout=log, stderr=log))

        def dismiss() -> None:
            for process in running:
                process.terminate()
            for process in running:
                process.wait()

        watch(folder, tell, lambda: any(process.poll() is None for process in running), dismiss)
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
