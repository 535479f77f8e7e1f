"""One small server for the tests that need one."""

from __future__ import annotations

import http.client
import json
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import jax.numpy as jnp
import pytest

from lmlab.data.chat_template import ChatTemplate
from lmlab.data.tokenizers.plain import Bytes
from lmlab.generation.continuous import Engine
from lmlab.generation.slots import Slots
from lmlab.models.gpt import GPT
from lmlab.nn.functional import ModelDef
from tests.drawn import drawn

LENGTH, SLOTS, WAITING, END = 96, 4, 28, 10
TEMPLATE = (
    "{% for m in messages %}<{{ m.role }}>{{ m.content }}{% endfor %}{% if add_generation_prompt %}<a>{% endif %}"
)


class Small:
    """A server on a thread of its own, and its client.

    Attributes:
      go_on: while it is cleared, the engine stands still between two steps.
    """

    def __init__(self, slots: Slots, params: Any) -> None:
        from lmlab.interop.answers import Served
        from lmlab.interop.http_server import Server
        from lmlab.interop.serving import make_app

        self.slots, self.params, self.go_on = slots, params, threading.Event()
        self.go_on.set()
        self.engine = Engine(slots, waiting=WAITING)
        step = Slots.step
        slots.step = lambda: (self.go_on.wait(60), step(slots))[1]  # type: ignore[method-assign]
        template = ChatTemplate(TEMPLATE)
        served = Served("small", self.engine, Bytes(), LENGTH, template, frozenset([END]), SLOTS + WAITING)
        self.server = Server(make_app(served), self.engine)
        self.socket = socket.create_server(("127.0.0.1", 0))
        self.port = self.socket.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"
        self._thread = threading.Thread(target=self.server.run, kwargs={"sockets": [self.socket]})

    def start(self) -> None:
        self.engine.start()
        self._thread.start()
        while not self.server.started:
            time.sleep(0.01)

    def stop(self) -> None:
        self.go_on.set()
        self.server.should_exit = True
        self._thread.join()
        self.engine.close()

    def send(self, path: str, body: Any = None, **headers: str) -> http.client.HTTPResponse:
        """Asks; a body of bytes is sent as it is, another one as JSON."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        data = body if body is None or isinstance(body, bytes) else json.dumps(body)
        named = {"Content-Type": "application/json"} | {name.replace("_", "-"): text for name, text in headers.items()}
        connection.request("GET" if body is None else "POST", path, data, named)
        return connection.getresponse()

    def ask(self, path: str, body: Any = None, **headers: str) -> tuple[int, Any]:
        """The status and the JSON of an answer."""
        answer = self.send(path, body, **headers)
        return answer.status, json.loads(answer.read())

    def stream(self, path: str, body: Any) -> list[Any]:
        """The events of a stream."""
        answer = self.send(path, body | {"stream": True})
        assert answer.status == 200 and answer.getheader("content-type", "").startswith("text/event-stream")
        lines = answer.read().decode().strip().split("\n\n")
        assert lines[-1] == "data: [DONE]"
        return [json.loads(line.removeprefix("data: ")) for line in lines[:-1]]


def eventually(true: Any) -> None:
    for _ in range(6000):
        if true():
            return
        time.sleep(0.01)
    raise AssertionError("it never came")


@pytest.fixture(scope="session")
def small_slots() -> tuple[Slots, Any]:
    pytest.importorskip("starlette")
    pytest.importorskip("uvicorn")
    model = ModelDef.of(lambda rngs: GPT(256, LENGTH, jnp.float32, rngs, width=12, heads=3, layers=2))
    params = drawn(model, 5, 0.6)
    slots = Slots(model, params, slots=SLOTS, length=LENGTH, pieces=(16,))
    slots.compile()
    return slots, params


@contextmanager
def small_server(slots: Slots, params: Any) -> Iterator[Small]:
    found = Small(slots, params)
    found.start()
    try:
        yield found
    finally:
        found.stop()


@pytest.fixture(scope="module")
def small(small_slots: tuple[Slots, Any]) -> Iterator[Small]:
    with small_server(*small_slots) as found:
        yield found
