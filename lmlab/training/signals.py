"""SIGTERM and SIGINT: the run saves its state and leaves; a second Ctrl-C leaves at once.

Where the state is in the hands of a donated call, a signal only sets a flag. Where the program waits (for a
compilation, for data, for an evaluation), it ends the wait by an exception. Compilations and evaluations run in
a thread of their own, because Python handles signals in the main thread and only between two bytecodes.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from types import FrameType, TracebackType
from typing import Any, NoReturn, TypeVar

Result = TypeVar("Result")

SIGNALS = (signal.SIGTERM, signal.SIGINT)


class StopRequested(BaseException):
    """A signal ended a wait. Not an Exception, so that no plug-in swallows it."""


class StopSignals:
    """Listens for SIGTERM and SIGINT while it is entered (in the main thread; elsewhere it hears nothing).

    Attributes:
      requested: the name of the first signal that came, or None.
      abandoned: whether a thread was left behind at its work: the process should then end by `leave`.
    """

    def __init__(self) -> None:
        self.requested: str | None = None
        self.abandoned = False
        self._may_raise = False
        self._before: dict[int, Any] = {}
        self._pipe: tuple[int, int] | None = None
        self._wakeup_before = -1

    def __enter__(self) -> StopSignals:
        if threading.current_thread() is not threading.main_thread():
            return self
        reading, writing = os.pipe()
        os.set_blocking(writing, False)
        self._pipe = reading, writing
        self._wakeup_before = signal.set_wakeup_fd(writing, warn_on_full_buffer=False)
        self._before = {number: signal.signal(number, self._handle) for number in SIGNALS}
        threading.Thread(target=self._watch, args=(reading,), daemon=True, name="lmlab-signals").start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._pipe is None:
            return
        for number, handler in self._before.items():
            signal.signal(number, handler)
        signal.set_wakeup_fd(self._wakeup_before)
        os.close(self._pipe[1])  # the watcher reads the end of the pipe, closes its side and ends
        self._pipe = None

    def listen_again(self) -> None:
        """Takes the signals back from a library that took them meanwhile, as joining other processes does in jax."""
        if self._pipe is not None:
            for number in SIGNALS:
                signal.signal(number, self._handle)

    @contextmanager
    def interruptible(self) -> Iterator[None]:
        """Inside, a signal raises StopRequested; also one that came before.

        Raises:
          StopRequested: a signal came.
        """
        before, self._may_raise = self._may_raise, True
        try:
            if self.requested:
                raise StopRequested(self.requested)
            yield
        finally:
            self._may_raise = before

    def wait_for(self, function: Callable[..., Result], *args: Any) -> Result:
        """`function(*args)`, computed in a thread while this one waits; a signal ends the wait, not the work.

        Raises:
          StopRequested: a signal came.
          Exception: whatever `function` raises.
        """
        if self._pipe is None:  # nothing to listen for
            return function(*args)
        done = threading.Event()
        outcome: list[Any] = [None, None]

        def work() -> None:
            try:
                outcome[0] = function(*args)
            except BaseException as error:
                outcome[1] = error
            finally:
                done.set()

        try:
            with self.interruptible():
                threading.Thread(target=work, daemon=True, name="lmlab-work").start()
                done.wait()
        except StopRequested:
            self.abandoned |= not done.is_set()
            raise
        if outcome[1] is not None:
            raise outcome[1]
        return outcome[0]

    def _handle(self, number: int, frame: FrameType | None) -> None:
        self.requested = self.requested or signal.Signals(number).name
        if self._may_raise:
            self._may_raise = False
            raise StopRequested(self.requested)

    def _watch(self, reading: int) -> None:
        """Reads signal numbers as they arrive, even while the main thread is inside a long native call."""
        heard = 0
        while number := os.read(reading, 1):
            if number[0] not in SIGNALS:
                continue
            heard += 1
            if heard > 1 and number[0] == signal.SIGINT:
                os._exit(130)
            if heard == 1:
                name = signal.Signals(number[0]).name
                again = " (Ctrl-C again: leave at once, without saving)" if name == "SIGINT" else ""
                with suppress(OSError):
                    os.write(2, f"\n{name}: saving, then leaving{again}\n".encode())
        os.close(reading)


def leave(code: int) -> NoReturn:
    """Ends the process without waiting for threads that are still at work (a compilation cannot be cancelled)."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)
