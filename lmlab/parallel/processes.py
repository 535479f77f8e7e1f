"""Several processes as one run: how they find each other, and how each ends when another one died."""

from __future__ import annotations

import atexit
import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import jax
from jax._src import distributed

from lmlab.errors import ConfigError, Interrupted, LmlabError, PeerLost
from lmlab.parallel.lifelines import watch_peers

INTERRUPTED = 130
LOST = ("Gloo", "peer", "heartbeat", "oordination", "Barrier", "UNAVAILABLE", "NCCL")
"""Words by which an error of a collective operation is told from an error of the program."""


def connect(coordinator: str | None = None, process_id: int | None = None, num_processes: int | None = None) -> None:
    """Joins the other processes of the run, if there are any; before jax has looked for devices.

    Without arguments the environment decides: JAX_COORDINATOR_ADDRESS, JAX_PROCESS_ID and JAX_NUM_PROCESSES; or a
    Slurm step, Open MPI, a TPU pod or an indexed Kubernetes job of several processes, as jax finds them.

    Args:
      coordinator: host:port of process 0.
      process_id: which process this is, from 0.
      num_processes: how many there are.

    Raises:
      ConfigError: the three do not make sense together.
    """
    coordinator = coordinator or os.environ.get("JAX_COORDINATOR_ADDRESS")
    process_id = _number("JAX_PROCESS_ID") if process_id is None else process_id
    num_processes = _number("JAX_NUM_PROCESSES") if num_processes is None else num_processes
    given = {"coordinator": coordinator, "process-id": process_id, "num-processes": num_processes}
    if not is_cluster(os.environ):
        if all(value is None for value in given.values()):
            return
        missing = [f"--{name}" for name, value in given.items() if value is None]
        if missing:
            raise ConfigError(f"several processes need --coordinator, --process-id and --num-processes: "
                              f"{' and '.join(missing)} not given.")  # fmt: skip
    if process_id is not None and num_processes is not None and not 0 <= process_id < num_processes:
        raise ConfigError(f"--process-id {process_id} is not one of 0 to {num_processes - 1} (--num-processes - 1).")
    jax.distributed.initialize(coordinator, num_processes, process_id)
    found = distributed.global_state  # jax tells nowhere else what it found in the cluster's environment
    host = str(found.coordinator_address).rsplit(":", 1)[0].strip("[]")
    atexit.register(watch_peers(found.client, host, found.process_id, _lost))


def is_cluster(environment: Mapping[str, str]) -> bool:
    """Whether the environment variables are those of one of several processes that a cluster started."""
    tasks = max(int(environment.get(name, "1")) for name in ("SLURM_STEP_NUM_TASKS", "OMPI_COMM_WORLD_SIZE"))
    pod = "," in environment.get("TPU_WORKER_HOSTNAMES", "")
    job = "KUBERNETES_SERVICE_HOST" in environment and "JOB_COMPLETION_INDEX" in environment
    return tasks > 1 or pod or job


@contextmanager
def among_peers() -> Iterator[None]:
    """Inside, an error ends this process promptly also when it is one of several.

    jax would wait at exit for the other processes, which wait for this one, and then abort (SIGABRT). Here the error
    is reported as usual, and the process then leaves without waiting and without a farewell, which the others take
    for a death. An interrupted run, which all processes leave together, ends the ordinary way. (When process 0 dies,
    jax may abort the others at once, from C++.)

    Raises:
      PeerLost: for an error of jax that says that another process is gone.
    """
    try:
        yield
    except Interrupted:
        raise
    except BaseException as error:
        if jax.process_count() == 1:
            raise
        lost = _peer_lost(error)
        # The newest exit function runs first: before the farewell, and before jax's own, which waits.
        atexit.register(_leave, _exit_code(lost or error))
        if lost:
            raise lost from error
        raise


def _peer_lost(error: BaseException) -> PeerLost | None:
    if not isinstance(error, jax.errors.JaxRuntimeError) or not any(word in str(error) for word in LOST):
        return None
    return PeerLost(_what_was_lost(str(error).strip().split("\n")[0][:200]))


def _what_was_lost(how: str) -> str:
    return (
        f"process {distributed.global_state.process_id} of {distributed.global_state.num_processes}: another process "
        f"ended or cannot be reached ({how}). Start all of them again with the same command: the run goes on from its "
        "last checkpoint."
    )


def _lost() -> None:
    """Ends this process from a background thread: the main one may be waiting for the dead process for ever."""
    print(f"lmlab: {_what_was_lost('its connection closed')}", file=sys.stderr)
    _leave(PeerLost.exit_code)


def _exit_code(error: BaseException) -> int:
    if isinstance(error, LmlabError):
        return error.exit_code
    return INTERRUPTED if isinstance(error, KeyboardInterrupt) else 1


def _leave(code: int) -> None:
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def _number(name: str) -> int | None:
    text = os.environ.get(name)
    try:
        return None if text is None else int(text)
    except ValueError:
        raise ConfigError(f"the environment variable {name} is '{text}', not a number.") from None
