"""Notices within moments that another process of the run has died, whatever this one is waiting for.

A collective operation whose partner died may wait for ever (on GPUs; on CPU where a process has several devices), and
jax's own heartbeat gives up after 100 seconds. Here every process keeps a connection to process 0: a process that
ends in good order says so; a connection that closes without a word is a death.
"""

from __future__ import annotations

import secrets
import selectors
import socket
import threading
from collections.abc import Callable

FAREWELL = b"."
KEY = "lmlab/lifeline"
TOKEN = 16
"""Bytes of the secret by which process 0 tells its peers from strangers that happen upon the port."""


def watch_peers(client: object, host: str, process_id: int, lost: Callable[[], None]) -> Callable[[], None]:
    """Watches the other processes in the background.

    Args:
      client: jax's client of the coordination service, by which process 0 tells the others its port.
      host: the name or address at which all processes reach process 0.
      process_id: which process this is.
      lost: called, from another thread, when a process has died.

    Returns:
      A function to call when this process ends in good order.
    """
    if process_id == 0:
        token = secrets.token_bytes(TOKEN)
        listener = _listen(host)
        place = f"{listener.getsockname()[1]} {token.hex()}" if listener else ""
        client.key_value_set(KEY, place)  # type: ignore[attr-defined]
        return _Hub(listener, token, lost).farewell if listener else lambda: None
    place = client.blocking_key_value_get(KEY, 60_000)  # type: ignore[attr-defined]
    line = _reach(host, *place.split()) if place else None
    return _Spoke(line, lost).farewell if line else lambda: None


def _listen(host: str) -> socket.socket | None:
    """A listening socket, or None where none may be had: then jax's heartbeat must do."""
    try:
        family = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)[0][0]
        return socket.create_server((host, 0), family=family)
    except OSError:
        return None


def _reach(host: str, port: str, token: str) -> socket.socket | None:
    """A connection to process 0, or None where it is not let through: then jax's heartbeat must do."""
    try:
        line = socket.create_connection((host, int(port)), timeout=10)
    except OSError:
        return None
    line.settimeout(None)
    line.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    line.sendall(bytes.fromhex(token))
    return line


def _last_word(line: socket.socket) -> bytes:
    try:
        return line.recv(TOKEN)
    except ConnectionError:
        return b""


class _Hub:
    """Process 0's end of every line."""

    def __init__(self, listener: socket.socket, token: bytes, lost: Callable[[], None]) -> None:
        self._listener, self._token, self._lost = listener, token, lost
        self._lines: set[socket.socket] = set()
        self._leaving = threading.Event()
        threading.Thread(target=self._watch, name="lifelines", daemon=True).start()

    def farewell(self) -> None:
        self._leaving.set()
        for line in tuple(self._lines):
            _say_farewell(line)

    def _watch(self) -> None:
        with selectors.DefaultSelector() as selector:
            selector.register(self._listener, selectors.EVENT_READ)
            while not self._leaving.is_set():
                for key, _ in selector.select():
                    if key.fileobj is self._listener:
                        selector.register(self._listener.accept()[0], selectors.EVENT_READ)
                    elif isinstance(key.fileobj, socket.socket) and not self._hear(key.fileobj):
                        selector.unregister(key.fileobj)

    def _hear(self, line: socket.socket) -> bool:
        """Whether to go on listening to this line."""
        word = _last_word(line)
        if line not in self._lines:
            if word == self._token:
                self._lines.add(line)
            return word == self._token
        self._lines.discard(line)
        if not word.startswith(FAREWELL) and not self._leaving.is_set():
            self._lost()
        return False


class _Spoke:
    """Another process's end of its line to process 0."""

    def __init__(self, line: socket.socket, lost: Callable[[], None]) -> None:
        self._line, self._lost = line, lost
        self._leaving = threading.Event()
        threading.Thread(target=self._watch, name="lifeline", daemon=True).start()

    def farewell(self) -> None:
        self._leaving.set()
        _say_farewell(self._line)

    def _watch(self) -> None:
        if not _last_word(self._line).startswith(FAREWELL) and not self._leaving.is_set():
            self._lost()


def _say_farewell(line: socket.socket) -> None:
    try:
        line.sendall(FAREWELL)
    except OSError:
        line.close()  # it is gone already, and so are we
