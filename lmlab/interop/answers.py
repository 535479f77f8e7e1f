"""The answer to a completion request: texts on their way from the engine to a client, whole or as a stream."""

from __future__ import annotations

import asyncio
import contextlib
import json
import secrets
import time
from collections.abc import AsyncIterator, Callable, Mapping, MutableMapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
from starlette.requests import ClientDisconnect
from starlette.responses import Response

from lmlab.contracts import Tokenizer
from lmlab.data.chat_template import ChatTemplate
from lmlab.errors import DataError
from lmlab.generation.continuous import Busy, Closed, Engine
from lmlab.generation.continuous import Request as Text
from lmlab.generation.served_text import StoppableText
from lmlab.interop.completion_requests import Ask, Refused

Scope = MutableMapping[str, Any]
Receive = Callable[[], Any]
Send = Callable[[MutableMapping[str, Any]], Any]


@dataclass(frozen=True)
class Served:
    """What is served.

    Attributes:
      name: of the model.
      engine: writes.
      tokenizer: of the run.
      length: the most tokens of a prompt with its answer.
      template: how conversations are written; None: they are refused.
      ends: ids that end a text.
      most: texts that one request may ask for.
      since: when it began, in seconds of Unix time.
      token_bytes: the tokenizer's.
    """

    name: str
    engine: Engine
    tokenizer: Tokenizer
    length: int
    template: ChatTemplate | None
    ends: frozenset[int]
    most: int
    since: int = field(default_factory=lambda: int(time.time()))
    token_bytes: Sequence[bytes] = field(default=(), repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "token_bytes", self.tokenizer.token_bytes())

    # --- Prompts ----------------------------------------------------------------------------------------------

    def prompts(self, ask: Ask) -> list[np.ndarray]:
        """The ids of what is to be continued; Refused where something is wrong with it."""
        if ask.messages:
            return [self._conversation(ask)]
        return [self._ids(prompt) for prompt in ask.prompts]

    def _conversation(self, ask: Ask) -> np.ndarray:
        if self.template is None:
            raise Refused(400, "the model that is served has no chat template: use /v1/completions.", "messages")
        try:
            text = self.template.render(ask.messages, add_generation_prompt=True)
            self._refuse_long(text)
            return np.asarray(getattr(self.tokenizer, "encode_marked", self.tokenizer.encode)(text), np.int32)
        except DataError as error:
            raise Refused(400, str(error), "messages") from None

    def _ids(self, prompt: str | list[int]) -> np.ndarray:
        if isinstance(prompt, list):
            if min(prompt) < 0 or max(prompt) >= self.tokenizer.vocab_size:
                raise Refused(400, f"'prompt': ids are from 0 to {self.tokenizer.vocab_size - 1}.", "prompt")
            return np.array(prompt, np.int32)
        self._refuse_long(prompt)
        try:
            ids = np.asarray(self.tokenizer.encode(prompt), np.int32)
        except DataError as error:
            raise Refused(400, str(error), "prompt") from None
        return ids if len(ids) else np.array([self.tokenizer.end_of_text], np.int32)

    def _refuse_long(self, text: str) -> None:
        """Before time is spent on its tokens."""
        if len(text) > self.length * max(map(len, self.token_bytes), default=1):
            raise Refused(400, f"a prompt of {len(text)} characters is longer than the {self.length} tokens that this "
                          "server reads.", "prompt", "context_length_exceeded")  # fmt: skip

    def room(self, ask: Ask, ids: np.ndarray) -> int:
        """Tokens that may be added to a prompt; Refused where there is no room for what is asked for."""
        left = self.length - len(ids)
        if left < (ask.tokens or 1):
            raise Refused(
                400, f"this server reads and writes {self.length} tokens at most, and {len(ids)} of the prompt with "
                f"{ask.tokens or 1} to be written are more.", "max_tokens", "context_length_exceeded",
            )  # fmt: skip
        return ask.tokens or left


class Event(NamedTuple):
    """A piece of a text, by its number, and at its end why it ended."""

    number: int
    text: str
    ending: str | Exception | None = None


class Answer:
    """The texts of one HTTP request on their way from the engine's thread to the server's.

    Args:
      served: what writes.
      ask: the request.
      prompts: ids.

    Raises:
      Refused: there is no room or no place for it.
    """

    def __init__(self, served: Served, ask: Ask, prompts: Sequence[np.ndarray]) -> None:
        if len(prompts) * ask.count > served.most:
            raise Refused(400, f"{len(prompts)} prompts of {ask.count} answers are more than the {served.most} texts "
                          "that one request may ask for.", "n")  # fmt: skip
        self._served, self._ask = served, ask
        self._loop, self._events = asyncio.get_running_loop(), asyncio.Queue[Event | None]()
        self._texts = [
            self._text(i * ask.count + choice, ids, served.room(ask, ids), choice)
            for i, ids in enumerate(prompts)
            for choice in range(ask.count)
        ]
        self._prompts = prompts
        try:
            served.engine.submit(self._texts)
        except Busy as error:
            raise Refused(429, str(error), code="server_busy") from None
        except Closed as error:
            raise Refused(503, str(error)) from None

    def _text(self, index: int, ids: np.ndarray, length: int, choice: int) -> Text:
        shown = StoppableText(self._served.token_bytes, self._ask.stops)
        if self._ask.echo:
            self._events.put_nowait(Event(index, self._served.tokenizer.decode(ids)))

        def receive(token: int) -> bool:
            piece = shown.feed(token)
            if piece:
                self._post(Event(index, piece))
            return not shown.stopped

        def close(ending: str | Exception) -> None:
            self._post(Event(index, shown.finish(), ending))

        return Text(ids, length, self._ask.sampling._replace(choice=choice), receive, close, self._served.ends)

    def _post(self, event: Event | None) -> None:
        with contextlib.suppress(RuntimeError):  # the server's loop has ended: nobody is there
            self._loop.call_soon_threadsafe(self._events.put_nowait, event)

    @property
    def usage(self) -> dict[str, int]:
        """Tokens read and written."""
        read, written = sum(map(len, self._prompts)), sum(text.written for text in self._texts)
        return {"prompt_tokens": read, "completion_tokens": written, "total_tokens": read + written}

    @contextlib.asynccontextmanager
    async def watched(self, receive: Receive) -> AsyncIterator[None]:
        """While this is open, a client that goes away frees its rows; so does whatever ends it early."""

        async def watch() -> None:
            while (await receive())["type"] != "http.disconnect":
                pass
            self._events.put_nowait(None)

        task = asyncio.create_task(watch())
        try:
            yield
        finally:
            task.cancel()
            for text in self._texts:
                text.cancelled = True

    async def events(self) -> AsyncIterator[Event]:
        """Pieces as they come, until all texts have ended; ClientDisconnect where nobody is left to read them."""
        left = len(self._texts)
        while left:
            event = await self._events.get()
            if event is None:
                raise ClientDisconnect
            left -= event.ending is not None
            yield event


class Shape:
    """The JSON of an answer.

    Args:
      served: what writes.
      ask: the request.
    """

    def __init__(self, served: Served, ask: Ask) -> None:
        self._chat, kind = bool(ask.messages), "chatcmpl" if ask.messages else "cmpl"
        whole = "chat.completion" if self._chat else "text_completion"
        self._head = {"id": f"{kind}-{secrets.token_hex(12)}", "created": int(time.time()), "model": served.name}
        self._whole, self._piece = whole, "chat.completion.chunk" if self._chat else whole

    def whole(self, texts: Sequence[str], endings: Sequence[str], usage: Mapping[str, int]) -> dict[str, Any]:
        """All of it."""
        choices = []
        for index, (text, ending) in enumerate(zip(texts, endings, strict=True)):
            said = {"message": {"role": "assistant", "content": text}} if self._chat else {"text": text}
            choices.append({"index": index, **said, "logprobs": None, "finish_reason": ending})
        return {**self._head, "object": self._whole, "choices": choices, "usage": usage}

    def piece(self, event: Event) -> dict[str, Any]:
        """A part of a stream."""
        said = {"delta": {"role": "assistant", "content": event.text}} if self._chat else {"text": event.text}
        choice = {"index": event.number, **said, "logprobs": None, "finish_reason": event.ending}
        return {**self._head, "object": self._piece, "choices": [choice]}

    def usage(self, usage: Mapping[str, int]) -> dict[str, Any]:
        """The last part of a stream that was asked to tell it."""
        return {**self._head, "object": self._piece, "choices": [], "usage": usage}


class EventStream(Response):
    """Server-sent events of an answer, each sent as it comes."""

    def __init__(self, answer: Answer, shape: Shape, usage: bool) -> None:
        super().__init__(media_type="text/event-stream", headers={"cache-control": "no-store"})
        del self.headers["content-length"]
        self._answer, self._shape, self._usage = answer, shape, usage

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Sends until all texts have ended, or nobody reads them."""
        async with self._answer.watched(receive):
            await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
            with contextlib.suppress(ClientDisconnect, OSError, asyncio.CancelledError):  # nobody reads it
                async for event in self._answer.events():
                    if isinstance(event.ending, Exception):
                        await self._send(send, failure(event.ending).body)
                        break
                    await self._send(send, self._shape.piece(event))
                else:
                    if self._usage:
                        await self._send(send, self._shape.usage(self._answer.usage))
                    await send({"type": "http.response.body", "body": b"data: [DONE]\n\n", "more_body": True})
                await send({"type": "http.response.body", "body": b""})

    async def _send(self, send: Send, what: Mapping[str, Any]) -> None:
        body = f"data: {json.dumps(what)}\n\n".encode()
        await send({"type": "http.response.body", "body": body, "more_body": True})


def failure(error: Exception) -> Refused:
    """What a client is told of a text that was not written to its end."""
    if isinstance(error, Closed):
        return Refused(503, str(error))
    return Refused(500, "the server failed; its terminal says why.")
