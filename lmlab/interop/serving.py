"""A model behind HTTP: OpenAI's completion endpoints, and a page to try it on.

  POST /v1/completions, /v1/chat/completions     JSON, or server-sent events with "stream": true
  GET  /v1/models, /health, /

Whoever is served without a token is on this machine: the name that the server is called by must be a local one, and
bodies must be declared as JSON, so that no web page that a browser shows can reach it (DNS rebinding, forms).
"""

from __future__ import annotations

import asyncio
import hmac
from dataclasses import dataclass
from importlib.resources import files
from typing import Any

from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from lmlab.interop.answers import Answer, EventStream, Receive, Scope, Send, Served, Shape, failure
from lmlab.interop.completion_requests import Refused, read_ask, read_json

LARGEST_BODY = 1 << 20
"""Bytes of a request; more are refused before they are read."""
SLOWEST_BODY = 30.0
"""Seconds in which a body must have come."""
LOCAL = ("localhost", "127.0.0.1", "[::1]")
"""What a server is called by those who are on its machine."""
PAGE = {
    "/": ("index.html", "text/html"),
    "/page.js": ("page.js", "text/javascript"),
    "/page.css": ("page.css", "text/css"),
}
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src data:; frame-ancestors 'none'"
)


def make_app(served: Served, *, token: str | None = None) -> Guard:
    """The application.

    Args:
      served: what is served.
      token: what those must know who want to be served; None: only those on this machine are.
    """

    async def complete(request: Request) -> Response:
        chat = request.url.path.endswith("chat/completions")
        ask = read_ask(read_json(await _body(request)), chat=chat, model=served.name)
        prompts = await run_in_threadpool(served.prompts, ask)
        answer, shape = Answer(served, ask, prompts), Shape(served, ask)
        if ask.stream:
            return EventStream(answer, shape, ask.usage)
        return await _whole(request, answer, shape, len(prompts) * ask.count)

    async def models(_: Request) -> Response:
        one = {"id": served.name, "object": "model", "created": served.since, "owned_by": "lmlab",
               "max_model_len": served.length, "chat": served.template is not None}  # fmt: skip
        return JSONResponse({"object": "list", "data": [one]})

    async def health(_: Request) -> Response:
        running, waiting = served.engine.load
        return JSONResponse({"status": "ok", "running": running, "waiting": waiting})

    routes = [
        Route("/v1/completions", complete, methods=["POST"]), Route("/v1/chat/completions", complete, methods=["POST"]),
        Route("/v1/models", models), Route("/health", health), *(_page(*one) for one in PAGE.items()),
    ]  # fmt: skip
    handlers: dict[Any, Any] = {
        Refused: _refused, HTTPException: _no_such, ClientDisconnect: _nobody, Exception: _failed,
    }  # fmt: skip
    return Guard(Starlette(routes=routes, exception_handlers=handlers), token)


async def _whole(request: Request, answer: Answer, shape: Shape, count: int) -> Response:
    """The answer once it is complete."""
    texts, endings = [""] * count, [""] * count
    async with answer.watched(request.receive):
        async for event in answer.events():
            if isinstance(event.ending, Exception):
                raise failure(event.ending)
            texts[event.number] += event.text
            endings[event.number] = event.ending or ""
    return JSONResponse(shape.whole(texts, endings, answer.usage))


async def _body(request: Request) -> bytes:
    """The bytes of a body; Refused where they are too many or too slow, or not said to be JSON."""
    if request.headers.get("content-type", "").split(";")[0].strip().lower() != "application/json":
        raise Refused(415, "send JSON, with the header 'Content-Type: application/json'.")
    content = b""
    try:
        async with asyncio.timeout(SLOWEST_BODY):
            async for part in request.stream():
                content += part
                if len(content) > LARGEST_BODY:
                    raise Refused(413, f"a request may have {LARGEST_BODY} bytes at most.")
    except TimeoutError:
        raise Refused(408, f"the body was not complete after {SLOWEST_BODY:g} seconds.") from None
    except asyncio.CancelledError:  # what the server does in the end with those that are not through
        raise Refused(503, "the server is shutting down.") from None
    return content


def _page(path: str, what: tuple[str, str]) -> Route:
    content = (files("lmlab.interop") / "page" / what[0]).read_bytes()
    headers = {"content-security-policy": POLICY, "x-content-type-options": "nosniff", "referrer-policy": "no-referrer"}

    async def send(_: Request) -> Response:
        return Response(content, media_type=what[1], headers=headers)

    return Route(path, send)


async def _refused(_: Request, error: Exception) -> Response:
    assert isinstance(error, Refused)
    headers = {"retry-after": "1"} if error.status == 429 else {}
    return JSONResponse(error.body, error.status, headers)


async def _no_such(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    said = Refused(error.status_code, f"{request.method} {request.url.path}: {error.detail}")
    return JSONResponse(said.body, error.status_code, dict(error.headers or {}))


async def _nobody(_: Request, __: Exception) -> Response:
    """The client has gone: this is sent to nobody."""
    return Response(status_code=499)


async def _failed(_: Request, error: Exception) -> Response:
    return JSONResponse(failure(error).body, 500)


@dataclass(frozen=True)
class Guard:
    """Lets in whom it knows: by the token where there is one, else by the name that they call the server.

    Attributes:
      app: behind it.
      token: None: none is needed.
    """

    app: Any
    token: str | None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Passes a request on, or refuses it."""
        answer = self._refusal(scope) if scope["type"] == "http" else None
        await (self.app if answer is None else answer)(scope, receive, send)

    def _refusal(self, scope: Scope) -> Response | None:
        request = Request(scope)
        if self.token is None:
            host = request.headers.get("host", "")
            if host not in LOCAL and host.rpartition(":")[0] not in LOCAL:
                return JSONResponse(Refused(421, "this server is for its own machine only.").body, 421)
            return None
        given = request.headers.get("authorization", "").encode()
        if scope["path"] in PAGE or hmac.compare_digest(given, f"Bearer {self.token}".encode()):
            return None
        headers = {"www-authenticate": "Bearer"}
        return JSONResponse(Refused(401, "a token is needed: 'Authorization: Bearer TOKEN'.").body, 401, headers)
