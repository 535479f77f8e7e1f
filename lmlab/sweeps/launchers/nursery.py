"""Workers that begin at once: forked from a process that has imported what they need, and that computes nothing.

That process is multiprocessing's fork server: it has no threads that a fork would lose, and no device was opened in it.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Mapping, Sequence
from multiprocessing import forkserver, get_context, resource_tracker
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from pathlib import Path

_HELD_BACK = {signal.SIGTERM}
"""A signal to the whole group of processes is the workers' to answer, not the server's, which tells how they ended."""


def prepare() -> None:
    """Has the imports begin, where they have not; returns at once. Who calls it early waits less for workers."""
    forkserver.set_forkserver_preload(["lmlab.sweeps.launchers.preloaded"])
    resource_tracker.ensure_running()  # which the server starts too, and which lets signals through afterwards
    before = signal.pthread_sigmask(signal.SIG_BLOCK, _HELD_BACK)  # the server inherits what is blocked
    try:
        forkserver.ensure_running()
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def start(words: Sequence[str], log: str, environment: Mapping[str, str]) -> tuple[BaseProcess, Connection]:
    """Starts a worker.

    Args:
      words: its arguments, see `sweeps.worker`.
      log: the path of the file that gets what it prints.
      environment: its variables; those that libraries read while they are imported are the server's.

    Returns:
      The process, and what is to be held open: the worker ends when it is closed, or who holds it dies.
    """
    prepare()
    context = get_context("forkserver")
    its, held = context.Pipe(duplex=False)
    process = context.Process(target=_work, args=(tuple(words), log, dict(environment), its))
    process.start()
    its.close()
    return process, held


def _work(words: Sequence[str], log: str, environment: Mapping[str, str], held: Connection) -> None:
    """What the forked process does."""
    with Path(log).open("ab") as file:
        for standard in (1, 2):
            os.dup2(file.fileno(), standard)
    os.dup2(held.fileno(), 0)
    held.close()
    os.environ.clear()
    os.environ.update(environment)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, _HELD_BACK)
    from lmlab.sweeps.worker import main

    sys.exit(main(*words))
