"""Workers as an array of Slurm jobs, by submitit."""

from __future__ import annotations

import math
import os
import signal
import subprocess
import time
from dataclasses import dataclass, field
from types import FrameType
from typing import Any, Literal

from lmlab.errors import ConfigError, RunFolderError
from lmlab.ranges import Count, Natural
from lmlab.registry import launchers
from lmlab.sweeps.folder import SweepFolder
from lmlab.sweeps.launchers.watching import ALONE, Tell, left, records_of, wait_for_locks, watch

SECONDS_BETWEEN_QUESTIONS = 10.0
"""Of the scheduler, which many people ask."""


@launchers.register("slurm")
@dataclass(frozen=True)
class Slurm:
    """An array of Slurm jobs, each a worker that takes trials until none is left (extra `slurm`: submitit).

    A job that comes to its time limit saves its trials and is queued again, and so is one that is preempted where the
    cluster requeues such. What the jobs print is in `log/slurm` of the sweep's folder, which all nodes must see under
    the same path, with locks that all of them see. The command stays and tells how it goes; Ctrl-C cancels the jobs,
    after which any launcher can go on.

    Args:
      minutes: time limit of a job.
      cpus: of a job.
      gpus: of a job.
      memory_gb: of a job; None: the cluster's default.
      partition: None: the cluster's default.
      options: further options of sbatch, such as `{'account': 'mine'}`.
      cluster: `slurm`, or `local`: submitit's own processes on this machine, which need no Slurm.
    """

    minutes: Count = 60
    cpus: Count = 1
    gpus: Natural = 0
    memory_gb: Count | None = None
    partition: str | None = None
    options: dict[str, str] = field(default_factory=dict)
    cluster: Literal["slurm", "local"] = "slurm"

    def run(self, folder: SweepFolder, workers: int, tell: Tell) -> None:
        """See `contracts.Launcher.run`."""
        try:
            import submitit
        except ImportError:
            raise ConfigError("the launcher 'slurm' needs submitit: pip install 'lmlab[slurm]'") from None
        try:
            executor = submitit.AutoExecutor(folder=folder.log / "slurm", cluster=self.cluster)
            executor.update_parameters(**self._parameters(workers))
            jobs = executor.map_array(Work(str(folder.path.resolve())), range(workers))
        except (RuntimeError, submitit.core.utils.UncompletedJobError, submitit.core.utils.FailedJobError) as error:
            raise RunFolderError(f"slurm: {str(error).strip().splitlines()[-1]}") from error

        queued = _Queued(jobs[0].job_id.split("_")[0]) if self.cluster == "slurm" else None

        def working() -> bool:
            if not left(records_of(folder)) or all(job.done() for job in jobs):
                return False
            return queued is None or queued()

        def dismiss() -> None:
            for job in jobs:
                job.cancel()
            wait_for_locks(folder)

        watch(folder, tell, working, dismiss)

    def _parameters(self, workers: int) -> dict[str, Any]:
        found: dict[str, Any] = {
            "name": "lmlab",
            "timeout_min": self.minutes,
            "cpus_per_task": self.cpus,
            "gpus_per_node": self.gpus,
        }
        if self.memory_gb is not None:
            found["mem_gb"] = self.memory_gb
        if self.cluster == "local":
            return found
        if self.partition is not None:
            found["slurm_partition"] = self.partition
        return {**found, "slurm_array_parallelism": workers, "slurm_additional_parameters": dict(self.options)}


class _Queued:
    """Whether Slurm still has an array of jobs: without accounting, submitit never hears that a job was lost."""

    def __init__(self, job: str) -> None:
        self._job = job
        self._asked, self._found = -math.inf, True

    def __call__(self) -> bool:
        if time.monotonic() - self._asked > SECONDS_BETWEEN_QUESTIONS:
            found = subprocess.run(["squeue", "-h", "-j", self._job], capture_output=True, check=False)
            self._asked, self._found = time.monotonic(), found.returncode == 0 and bool(found.stdout.strip())
        return self._found


class Work:
    """What a job does. It is pickled, and loaded again when the job is requeued.

    Args:
      folder: path of the sweep's.
    """

    def __init__(self, folder: str) -> None:
        self._folder = folder
        self._again = False

    def __call__(self, number: int) -> int:
        """Works until nothing is left; queues the job again where its time was over."""
        from lmlab.sweeps.worker import main

        before = signal.signal(signal.SIGUSR2, self._out_of_time)  # submitit's own would leave without saving
        try:
            return main(self._folder, ALONE, before_leaving=self._queue_again)
        finally:
            signal.signal(signal.SIGUSR2, before)

    def _out_of_time(self, number: int, frame: FrameType | None) -> None:
        self._again = True
        os.kill(os.getpid(), signal.SIGTERM)

    def _queue_again(self, code: int) -> None:
        if self._again:
            subprocess.run(["scontrol", "requeue", _job()], check=True)


def _job() -> str:
    array, task = os.environ.get("SLURM_ARRAY_JOB_ID"), os.environ.get("SLURM_ARRAY_TASK_ID")
    return f"{array}_{task}" if array else os.environ["SLURM_JOB_ID"]
