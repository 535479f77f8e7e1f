"""The HTTP server as its clients see it: the same texts as the decoder's, and a clear answer to everything else."""

from __future__ import annotations

import asyncio
import http.client
import json
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest

from lmlab.data.chat_template import render
from lmlab.generation.decoding import Decoder
from lmlab.generation.samplers import Greedy, Sample
from tests.interop.conftest import END, LENGTH, SLOTS, TEMPLATE, WAITING, Small, eventually, small_server

COMPLETE, CHAT = "/v1/completions", "/v1/chat/completions"
GREEDY = {"prompt": "def ", "max_tokens": 20, "temperature": 0}


def decoded(small: Small, sampler: Any, prompts: list[str], length: int, seed: int = 0) -> list[np.ndarray]:
    decoder = Decoder(small.slots.model, sampler, end_of_text=END)
    ids = [np.frombuffer(prompt.encode(), np.uint8).astype(np.int32) for prompt in prompts]
    return decoder.complete(small.params, ids, length=length, seed=seed)


def text(ids: np.ndarray) -> str:
    return bytes(ids.tolist()).decode(errors="replace")


def test_texts_are_the_decoders(small: Small) -> None:
    (greedy,) = decoded(small, Greedy(), ["def "], 20)
    status, answer = small.ask(COMPLETE, GREEDY | {"echo": True, "model": "small"})
    assert status == 200 and answer["object"] == "text_completion" and answer["model"] == "small"
    assert answer["choices"] == [
        {"index": 0, "text": f"def {text(greedy)}", "logprobs": None, "finish_reason": "length"}
    ]
    assert answer["usage"] == {"prompt_tokens": 4, "completion_tokens": 20, "total_tokens": 24}
    assert small.ask(COMPLETE, GREEDY | {"prompt": list(b"def ")})[1]["choices"][0]["text"] == text(greedy)

    drawn = decoded(small, Sample(1.3, 40, 0.9, 0.01), ["é"] * 3, 20, seed=7)
    sampled = {"prompt": "é", "n": 3, "max_tokens": 20, "temperature": 1.3, "top_k": 40, "top_p": 0.9, "min_p": 0.01}
    _, answer = small.ask(COMPLETE, sampled | {"seed": 7})
    assert [choice["text"] for choice in answer["choices"]] == [text(row) for row in drawn]


def test_a_stream_is_the_whole_in_pieces(small: Small) -> None:
    asked = {"prompt": ["def ", "x"], "n": 2, "max_tokens": 20, "seed": 3}
    _, whole = small.ask(COMPLETE, asked)
    events = small.stream(COMPLETE, asked | {"stream_options": {"include_usage": True}})
    assert events[-1]["choices"] == [] and events[-1]["usage"] == whole["usage"]
    for choice in whole["choices"]:
        mine = [event["choices"][0] for event in events[:-1] if event["choices"][0]["index"] == choice["index"]]
        assert "".join(one["text"] for one in mine) == choice["text"]
        assert [one["finish_reason"] for one in mine[:-1]] == [None] * (len(mine) - 1)
        assert mine[-1]["finish_reason"] == choice["finish_reason"]


def test_a_string_ends_a_text(small: Small) -> None:
    _, answer = small.ask(COMPLETE, GREEDY | {"max_tokens": 60, "temperature": 1, "seed": 1})
    whole = answer["choices"][0]["text"]
    stop = whole[5:7]
    _, answer = small.ask(COMPLETE, GREEDY | {"max_tokens": 60, "temperature": 1, "seed": 1, "stop": [stop, "\n"]})
    (choice,) = answer["choices"]
    assert choice["finish_reason"] == "stop" and choice["text"] == whole[: whole.find(stop)]
    assert answer["usage"]["completion_tokens"] < 60
    assert small.engine.load == (0, 0)


def test_a_conversation_is_written_by_the_template(small: Small) -> None:
    messages = [{"role": "u", "content": "hi"}, {"role": "a", "content": [{"type": "text", "text": "ho"}]}]
    plain = [{"role": "u", "content": "hi"}, {"role": "a", "content": "ho"}]
    prompt = render(TEMPLATE, plain, add_generation_prompt=True)
    asked = {"max_tokens": 9, "temperature": 0}
    _, completion = small.ask(COMPLETE, asked | {"prompt": prompt})
    _, answer = small.ask(CHAT, asked | {"messages": messages})
    said = completion["choices"][0]["text"]
    assert answer["object"] == "chat.completion" and answer["usage"] == completion["usage"]
    assert answer["choices"][0]["message"] == {"role": "assistant", "content": said}
    events = small.stream(CHAT, asked | {"messages": messages})
    assert "".join(event["choices"][0]["delta"]["content"] for event in events) == said
    _, rest = small.ask(CHAT, {"messages": messages, "seed": 1})  # as much as there is room for
    assert rest["usage"]["total_tokens"] == LENGTH or rest["choices"][0]["finish_reason"] == "stop"


def test_many_clients_get_what_each_would_get_alone(small: Small) -> None:
    asked = [GREEDY | {"prompt": "ab" * (1 + i % 5), "max_tokens": 5 + i, "seed": i, "temperature": i % 3}
             for i in range(SLOTS + WAITING)]  # fmt: skip
    alone = [small.ask(COMPLETE, one)[1]["choices"] for one in asked]
    with ThreadPoolExecutor(len(asked)) as clients:
        together = list(clients.map(lambda one: small.ask(COMPLETE, one), asked))
    assert [status for status, _ in together] == [200] * len(asked)
    assert [answer["choices"] for _, answer in together] == alone


REFUSED: list[tuple[Any, int, str]] = [
    (b"{", 400, "no JSON"),
    (b"[" * 100_000, 400, "no JSON"),
    (b'{"seed": ' + b"9" * 5000 + b"}", 400, "no JSON"),
    (b"\xff", 400, "no JSON"),
    ([], 400, "must be a JSON object"),
    ({"prompt": 3}, 400, "'prompt' must be"),
    ({"prompt": []}, 400, "'prompt' must be"),
    ({"prompt": [[]]}, 400, "'prompt' must be"),
    ({"prompt": [True]}, 400, "'prompt' must be"),
    ({"prompt": [256]}, 400, "ids are from 0 to 255"),
    ({"prompt": [-1]}, 400, "ids are from 0 to 255"),
    ({"prompt": [10**30]}, 400, "ids are from 0 to 255"),
    ({"prompt": "\ud800"}, 400, "surrogate"),
    ({"prompt": "a", "max_tokens": 0}, 400, "'max_tokens' must be a whole number from 1"),
    ({"prompt": "a", "max_tokens": True}, 400, "not true"),
    ({"prompt": "a", "max_tokens": 1.5}, 400, "'max_tokens' must be a whole number"),
    ({"prompt": "a", "max_tokens": LENGTH}, 400, f"{LENGTH} tokens at most"),
    ({"prompt": "a" * (LENGTH + 1)}, 400, f"longer than the {LENGTH} tokens"),
    ({"prompt": "a" * LENGTH}, 400, f"{LENGTH} tokens at most"),
    (b'{"prompt": "a", "temperature": NaN}', 400, "not NaN"),
    (b'{"prompt": "a", "temperature": 1e999}', 400, "from 0 to 100"),
    ({"prompt": "a", "temperature": -1}, 400, "from 0 to 100"),
    ({"prompt": "a", "top_p": 0}, 400, "'top_p' must be a number"),
    ({"prompt": "a", "top_k": 0}, 400, "'top_k' must be a whole number"),
    ({"prompt": "a", "min_p": "x"}, 400, "'min_p' must be a number"),
    ({"prompt": "a", "seed": 2**32}, 400, "'seed' must be a whole number"),
    ({"prompt": "a", "n": 1000}, 400, "texts that one request may ask for"),
    ({"prompt": "a", "stop": ""}, 400, "'stop' must be"),
    ({"prompt": "a", "stop": ["a"] * 5}, 400, "'stop' must be"),
    ({"prompt": "a", "stop": {"a": 1}}, 400, "'stop' must be"),
    ({"prompt": "a", "stream": "yes"}, 400, "'stream' must be true or false"),
    ({"prompt": "a", "stream_options": []}, 400, "'stream_options' may hold"),
    ({"prompt": "a", "temprature": 1}, 400, "unknown field 'temprature'"),
    ({"prompt": "a", "logprobs": 5}, 400, "'logprobs' is not supported"),
    ({"prompt": "a", "model": "other"}, 404, "there is no model 'other'"),
    ({"prompt": "a", "model": 1}, 400, "'model' must be a string"),
    ({"prompt": "a", "messages": []}, 400, "unknown field 'messages'"),
    (b"x" * (1 << 21), 413, "1048576 bytes at most"),
]


@pytest.mark.parametrize(("body", "status", "message"), REFUSED)
def test_what_cannot_be_served_is_refused_in_openais_shape(small: Small, body: Any, status: int, message: str) -> None:
    found, answer = small.ask(COMPLETE, body)
    assert found == status and answer.keys() == {"error"}
    assert answer["error"].keys() == {"message", "type", "param", "code"} and message in answer["error"]["message"]
    assert answer["error"]["type"] == "invalid_request_error" and "\n" not in answer["error"]["message"]


def test_other_requests_are_refused_too(small: Small) -> None:
    assert small.ask(CHAT, {"messages": [{"role": "u"}]})[0] == 400
    assert small.ask(CHAT, {"messages": "hi"})[0] == 400
    assert small.ask("/nowhere")[0] == 404 and small.ask(COMPLETE)[0] == 405
    assert small.ask(COMPLETE, GREEDY, Content_Type="text/plain")[0] == 415
    assert small.ask("/v1/models", Host="evil.example")[0] == 421
    assert small.ask("/v1/models", Host="127.0.0.1.evil.example:80")[0] == 421
    assert small.ask("/v1/models")[1]["data"][0]["id"] == "small"
    assert small.ask(COMPLETE, GREEDY | {"logprobs": None, "presence_penalty": 0, "user": "me"})[0] == 200


def test_what_finds_no_place_is_told_to_come_again(small: Small) -> None:
    small.go_on.clear()
    try:
        with ThreadPoolExecutor(SLOTS + WAITING) as clients:
            answers = [clients.submit(small.ask, COMPLETE, GREEDY) for _ in range(SLOTS + WAITING)]
            eventually(lambda: sum(small.engine.load) == SLOTS + WAITING)
            refused = small.send(COMPLETE, GREEDY)
            assert refused.status == 429 and refused.getheader("retry-after") == "1"
            assert small.ask("/health")[1]["waiting"] > 0
            small.go_on.set()
            assert [answer.result()[0] for answer in answers] == [200] * len(answers)
    finally:
        small.go_on.set()
    assert small.ask(COMPLETE, GREEDY)[0] == 200


@pytest.mark.parametrize("stream", [True, False])
def test_a_client_that_goes_away_frees_its_row(small: Small, stream: bool) -> None:
    small.go_on.clear()
    connection = http.client.HTTPConnection("127.0.0.1", small.port, timeout=60)
    body = json.dumps(GREEDY | {"max_tokens": 90, "stream": stream})
    connection.request("POST", COMPLETE, body, {"Content-Type": "application/json"})
    eventually(lambda: small.engine.load == (1, 0))
    (request,) = small.engine._held
    assert connection.sock is not None
    connection.sock.close()
    eventually(lambda: request.cancelled)
    small.go_on.set()
    eventually(lambda: small.engine.load == (0, 0))
    assert request.written < 5


def test_a_server_that_ends_tells_those_who_wait(small_slots: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lmlab.interop.http_server.GRACE", 0.3)
    with small_server(*small_slots) as small, ThreadPoolExecutor(2) as clients:
        small.go_on.clear()
        whole = clients.submit(small.ask, COMPLETE, GREEDY)
        pieces = clients.submit(lambda: small.send(COMPLETE, GREEDY | {"stream": True}).read().decode())
        eventually(lambda: sum(small.engine.load) == 2)
        small.server.should_exit = True
        eventually(lambda: small.engine._closed)
        small.go_on.set()
        status, answer = whole.result()
        assert status == 503 and "shutting down" in answer["error"]["message"]
        last = pieces.result().strip().split("\n\n")[-1]
        assert "shutting down" in json.loads(last.removeprefix("data: "))["error"]["message"]


def test_a_body_that_does_not_come_is_refused(small: Small, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lmlab.interop.serving.SLOWEST_BODY", 0.1)
    connection = http.client.HTTPConnection("127.0.0.1", small.port, timeout=60)
    connection.putrequest("POST", COMPLETE)
    connection.putheader("Content-Type", "application/json")
    connection.putheader("Content-Length", "100")
    connection.endheaders(b"{")
    assert connection.getresponse().status == 408


def guarded(headers: dict[str, str], path: str = "/v1/models") -> int:
    """The status that a server with a token answers."""
    from starlette.responses import PlainTextResponse

    from lmlab.interop.serving import Guard

    sent: list[Any] = []

    async def run() -> None:
        async def send(message: Any) -> None:
            sent.append(message)

        raw = [(name.lower().encode(), text.encode("latin-1")) for name, text in headers.items()]
        scope = {"type": "http", "method": "GET", "path": path, "headers": raw, "query_string": b""}
        await Guard(PlainTextResponse("in"), "correct horse")(scope, None, send)  # type: ignore[arg-type]

    asyncio.run(run())
    return int(sent[0]["status"])


def test_who_does_not_know_the_token_is_not_let_in() -> None:
    pytest.importorskip("starlette")
    assert guarded({"Authorization": "Bearer correct horse", "Host": "elsewhere"}) == 200
    assert guarded({}, path="/") == 200
    for wrong in ("Bearer", "Bearer correct hors", "bearer correct horse", "Basic correct horse", "Bearer é", ""):
        assert guarded({"Authorization": wrong}) == 401
    assert guarded({}) == 401


def test_nothing_is_left_behind(small: Small) -> None:
    assert small.engine.load == (0, 0) and small.engine.error is None and small.slots.held == 0
    assert threading.active_count() < 60
