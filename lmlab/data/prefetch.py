"""Batches made ahead by a thread in the background; a thread that dies is an error, never a wait without end.

grain's prefetching iterators wait without a time limit for their worker, so that one killed in the middle hangs
the training run. This one looks at the worker while it waits.
"""

from __future__ import annotations

import atexit
import queue
import threading
import weakref
from collections.abc import Callable, Iterator
from types import TracebackType
from typing import Generic, TypeVar

from lmlab.errors import DataError

T = TypeVar("T")

_POLL = 0.2  # seconds between looks at the other side while waiting


class Prefetch(Generic[T]):
    """Iterates over `make(place)` for every place in turn, made ahead in the background.

    What `make` raises reaches the caller of `next` in its turn, as the same exception. Close it, or use it in a
    `with` statement.

    Args:
      make: what makes the item at a place; called in one background thread only, in order.
      places: the places to visit.
      depth: items made ahead; 0 makes each when it is asked for, without a thread.
    """

    def __init__(self, make: Callable[[int], T], places: range, depth: int) -> None:
        self._make = make
        self._places = iter(places)
        self._next = places.start
        self._stop = threading.Event()
        self._queue: queue.Queue[_Made[T]] = queue.Queue(max(depth, 1))
        self._thread: threading.Thread | None = None
        if depth > 0:
            # The thread must not hold this object, or an iterator that is dropped unclosed would never end it.
            work = (make, places, self._queue, self._stop)
            self._thread = threading.Thread(target=_work, args=work, name="lmlab-prefetch", daemon=True)
            self._thread.start()
            weakref.finalize(self, self._stop.set)
            _running[self._thread] = self._stop

    def __iter__(self) -> Iterator[T]:
        return self

    def __next__(self) -> T:
        if self._stop.is_set():
            raise StopIteration
        place = next(self._places, None)
        if place is None:
            self.close()
            raise StopIteration
        self._next = place
        if self._thread is None:
            return self._make(place)
        value, error = self._wait(self._thread)
        if error is None:
            return value  # type: ignore[return-value]
        self.close()
        if isinstance(error, Exception) and not isinstance(error, StopIteration):
            raise error
        raise self._dead(repr(error)) from error  # SystemExit or StopIteration would end the training in silence

    def _wait(self, thread: threading.Thread) -> _Made[T]:
        while True:
            alive = thread.is_alive()  # before looking: what a thread put before it died is still there
            try:
                return self._queue.get(timeout=_POLL if alive else 0)
            except queue.Empty:
                if not alive:
                    self.close()
                    raise self._dead("it ended without a word") from None

    def _dead(self, how: str) -> DataError:
        return DataError(
            f"the loader thread died before it made batch {self._next} ({how}). "
            "Run the same command again: it goes on from the last checkpoint."
        )

    def close(self) -> None:
        """Ends the thread. Calling it again does nothing."""
        self._stop.set()
        while not self._queue.empty():  # a thread that waits for room sees at once that it is over
            self._queue.get_nowait()
        if self._thread is not None and self._thread.is_alive():
            self._thread.join(timeout=10)

    def __enter__(self) -> Prefetch[T]:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


_running: weakref.WeakKeyDictionary[threading.Thread, threading.Event] = weakref.WeakKeyDictionary()


@atexit.register
def _end_all() -> None:
    """A thread that is inside jax while the interpreter goes down aborts the process."""
    threads = dict(_running)
    for stop in threads.values():
        stop.set()
    for thread in threads:
        thread.join(timeout=10)


_Made = tuple[T | None, BaseException | None]


def _work(make: Callable[[int], T], places: range, made: queue.Queue[_Made[T]], stop: threading.Event) -> None:
    place = places.start
    try:
        for place in places:
            if not _put((make(place), None), made, stop):
                return
    except BaseException as error:  # not hidden: handed to the caller, who raises it
        error.add_note(f"while batch {place} of the training data was being made")
        _put((None, error), made, stop)


def _put(item: _Made[T], made: queue.Queue[_Made[T]], stop: threading.Event) -> bool:
    while not stop.is_set():
        try:
            made.put(item, timeout=_POLL)
            return True
        except queue.Full:
            continue
    return False
