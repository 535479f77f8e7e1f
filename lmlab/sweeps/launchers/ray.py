"""Workers as Ray tasks, on one machine or on a cluster."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lmlab.errors import ConfigError
from lmlab.ranges import Natural, NonNegative
from lmlab.registry import launchers
from lmlab.sweeps.folder import SweepFolder
from lmlab.sweeps.launchers.watching import ALONE, DIRECTORY, Tell, watch


@launchers.register("ray")
@dataclass(frozen=True)
class Ray:
    """A Ray task for each group of trials that share a program (extra `ray`), as many at a time as there are resources.

    A task whose machine or process is lost is started again, and goes on with what was saved. All machines must see the
    folder under the same path, with locks that all of them see. With `sweep.halving`, where groups wait for each other,
    there are as many tasks as `sweep.workers`, each of which takes trials of all groups.

    Args:
      address: of a cluster, or `auto`; None: Ray is started on this machine, and ends with the sweep.
      cpus: of a task.
      gpus: of a task; several tasks share a GPU where it is below 1, each with its part of the memory.
      retries: how often a lost task is started again.
    """

    address: str | None = None
    cpus: NonNegative = 1.0
    gpus: NonNegative = 0.0
    retries: Natural = 3

    def run(self, folder: SweepFolder, workers: int, tell: Tell) -> None:
        """See `contracts.Launcher.run`."""
        try:
            import ray
        except ImportError:
            raise ConfigError("the launcher 'ray' needs Ray: pip install 'lmlab[ray]'") from None
        sweep = folder.read()
        groups = sorted({trial["group"] for trial in sweep["trials"]})
        shares = [None] * workers if sweep["halving"] else [[group] for group in groups]
        ray.init(address=self.address, include_dashboard=False, log_to_driver=False, configure_logging=False)
        try:
            task = ray.remote(num_cpus=self.cpus, num_gpus=self.gpus, max_retries=self.retries, max_calls=1)(_work)
            place = str(Path.cwd())
            tasks = [task.remote(str(folder.path.resolve()), place, share, self.gpus) for share in shares]

            def working() -> bool:
                return bool(ray.wait(tasks, num_returns=len(tasks), timeout=0)[1])

            def dismiss() -> None:
                for one in tasks:
                    ray.cancel(one)
                ray.wait(tasks, num_returns=len(tasks))

            watch(folder, tell, working, dismiss)
        finally:
            ray.shutdown()


def _work(folder: str, directory: str, groups: list[int] | None, gpus: float) -> int:
    """What a task does."""
    import os

    from lmlab.sweeps.worker import main

    if 0 < gpus < 1:
        os.environ.setdefault("XLA_PYTHON_CLIENT_MEM_FRACTION", f"{0.9 * gpus:.3f}")
    chosen: list[Any] = [] if groups is None else ["--groups", ",".join(map(str, groups))]
    return main(folder, ALONE, DIRECTORY, directory, *chosen)
