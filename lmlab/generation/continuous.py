"""Continuous batching: requests are written side by side, each from when a row is free until its own end.

One thread owns the device. Between two steps, in which every row gets one token, it takes in what has come: prompts are
read in the order in which they came, at most `READ_BETWEEN_STEPS` tokens at a time, so that a long prompt does not keep
the others waiting. A request that was accepted is closed exactly once, whatever happens.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from lmlab.errors import LmlabError
from lmlab.generation.slots import Holder, Opening, Sampling, Slots

READ_BETWEEN_STEPS = 128
"""Tokens of prompts that are read before the others get their next token."""

Ending = Literal["stop", "length"]
"""Why a text ends: by a token, or by whoever receives it, that ends it; or because it has all its tokens."""


class Busy(LmlabError):
    """There is no place for a request now; it may come again."""


class Closed(LmlabError):
    """No request is taken, or written to its end, any more."""


@dataclass(eq=False)
class Request:
    """One text to be continued.

    `receive` and `close` are called by the engine's thread and must not wait.

    Attributes:
      prompt: ids, at least one.
      length: the most tokens to add, at least one.
      sampling: how they are drawn.
      ends: ids that end the text; they are not received.
      receive: takes each token; False ends the text.
      close: called once, at the end: why it ended, or the error because of which it is not complete.
      cancelled: nobody waits for it any more; it leaves before the next token.
    """

    prompt: np.ndarray
    length: int
    sampling: Sampling
    receive: Callable[[int], bool]
    close: Callable[[Ending | Exception], None]
    ends: frozenset[int] = frozenset()
    cancelled: bool = False
    written: int = field(default=0, init=False)

    @property
    def need(self) -> int:
        """The most tokens that its row will have."""
        return len(self.prompt) + self.length

    def take(self, token: int) -> Ending | None:
        """Hands on a token; why the text ends with it, None where it goes on."""
        if token in self.ends:
            return "stop"
        self.written += 1
        if not self.receive(token):
            return "stop"
        return "length" if self.written == self.length else None


class Engine:
    """Writes requests on a thread of its own.

    Args:
      slots: compiled rows; the thread's alone from `start` on.
      waiting: requests that may wait for a row.

    Attributes:
      error: what ended the thread, if it was not `close`.
    """

    def __init__(self, slots: Slots, *, waiting: int) -> None:
        self._slots, self._places = slots, slots.slots + waiting
        self._requests: deque[Request] = deque()  # accepted, and without a row
        self._open: Request | None = None
        self._opening: Opening | None = None
        self._held: list[Request] = []
        self._news = threading.Condition()
        self._closed = False
        self._thread = threading.Thread(target=self._run, name="lmlab-engine", daemon=True)
        self.error: Exception | None = None

    @property
    def load(self) -> tuple[int, int]:
        """Requests that have a row, and those that wait for one."""
        return len(self._held), len(self._requests)

    def start(self) -> None:
        """Begins to work."""
        self._thread.start()

    def submit(self, requests: Sequence[Request]) -> None:
        """Accepts these requests, all or none; may be called from any thread.

        Raises:
          Busy: there are not as many places.
          Closed: nothing is accepted any more.
        """
        with self._news:
            if self._closed:
                raise Closed("the server is shutting down.")
            if len(self._requests) + len(self._held) + len(requests) > self._places:
                raise Busy(f"all {self._places} places are taken. Try again in a moment.")
            self._requests.extend(requests)
            self._news.notify()

    def close(self, timeout: float | None = None) -> None:
        """Ends the thread; requests that are not complete are closed with `Closed`."""
        with self._news:
            self._closed = True
            self._news.notify()
        if self._thread.is_alive():
            self._thread.join(timeout)

    # --- The thread -------------------------------------------------------------------------------------------

    def _run(self) -> None:
        error: Exception = Closed("the server is shutting down: this text is not complete.")
        try:
            while self._has_work():
                self._drop_cancelled()
                self._read_prompts()
                self._step()
        except Exception as raised:  # whatever it is, those who wait are told
            self.error = error = raised
        with self._news:
            self._closed = True
            left = [*self._held, *self._requests]
            self._held, self._requests = [], deque()
        for request in left:
            self._slots.leave(request)
            request.close(error)

    def _has_work(self) -> bool:
        """Waits for a request; False when the thread is to end."""
        with self._news:
            self._news.wait_for(lambda: self._closed or self._requests or self._held)
            return not self._closed

    def _drop_cancelled(self) -> None:
        for request in [*self._held, *self._requests]:
            if request.cancelled:
                self._end(request, Closed("nobody waits for this text any more."))

    def _read_prompts(self) -> None:
        left = READ_BETWEEN_STEPS
        while left > 0 and self._requests and (self._opening is not None or self._slots.held < self._slots.slots):
            request = self._requests[0]
            if self._open is not request:
                self._open, self._opening = request, self._slots.open(request.need)
            assert self._opening is not None
            before = self._opening.read
            self._opening = self._slots.read(self._opening, request.prompt, request.sampling)
            left -= self._opening.read - before
            if self._opening.token is not None:
                self._enter(request, self._opening)

    def _enter(self, request: Request, opening: Opening) -> None:
        """The first token of a request, whose prompt was read, and a row for those to come."""
        with self._news:
            self._requests.popleft()
            self._held.append(request)
        self._open = self._opening = None
        assert opening.token is not None
        ending = request.take(int(np.asarray(opening.token)[0]))
        if ending is None:
            self._slots.enter(opening, request.sampling, Holder(request, request.need))
        else:
            self._end(request, ending)

    def _step(self) -> None:
        if not self._slots.held:
            return
        for request, token in self._slots.step():
            ending = request.take(token)
            if ending is not None:
                self._end(request, ending)

    def _end(self, request: Request, ending: Ending | Exception) -> None:
        """Lets go of a request and tells it so."""
        self._slots.leave(request)
        if request is self._open:
            self._open = self._opening = None
        with self._news:
            if request in self._held:
                self._held.remove(request)
            else:
                self._requests.remove(request)
        request.close(ending)
