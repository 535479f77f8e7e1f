"""Runs an application on a socket until a signal, and lets what it does come to an end."""

from __future__ import annotations

import asyncio
import math
import signal
import socket
from types import FrameType
from typing import Any

import uvicorn

from lmlab.generation.continuous import Engine

GRACE = 5.0
"""Seconds for texts that are being written when the server is told to end."""
HURRY = 5
"""Seconds more for connections through which an answer, or a request, does not get."""


class Server(uvicorn.Server):
    """Ends its engine with itself, and itself with its engine.

    Args:
      app: the application.
      engine: what writes for it.
    """

    def __init__(self, app: Any, engine: Engine) -> None:
        # Of the two parsers h11 is the one in pure Python: nothing else to install, and fast enough for tokens.
        super().__init__(uvicorn.Config(app, http="h11", ws="none", loop="asyncio", lifespan="off", log_level="error",
                                        access_log=False, server_header=False,
                                        timeout_graceful_shutdown=math.ceil(GRACE) + HURRY))  # fmt: skip
        self._engine = engine

    async def on_tick(self, counter: int) -> bool:
        """Whether to end, asked ten times a second."""
        return await super().on_tick(counter) or self._engine.error is not None

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Takes no connection any more, and waits for those that are there."""
        ending = asyncio.get_running_loop().call_later(GRACE, self._engine.close, 0)
        await super().shutdown(sockets)
        ending.cancel()


def serve(app: Any, engine: Engine, listening: socket.socket) -> None:
    """Serves until SIGTERM or SIGINT, in the main thread; raises what broke the engine, if anything did."""

    def heard(number: int, frame: FrameType | None) -> None:
        """The server has ended when it passes its signal on."""

    before = {number: signal.signal(number, heard) for number in (signal.SIGTERM, signal.SIGINT)}
    engine.start()
    try:
        Server(app, engine).run(sockets=[listening])
    finally:
        engine.close()
        for number, handler in before.items():
            signal.signal(number, handler)
    if engine.error is not None:
        raise engine.error
