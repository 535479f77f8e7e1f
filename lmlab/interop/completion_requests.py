"""What OpenAI's completion endpoints are asked, read and checked: all of it, since what is ignored misleads.

`top_k` and `min_p` are asked for beyond that API, as other servers have them.
"""

from __future__ import annotations

import json
import math
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from lmlab.generation.slots import Sampling

LONGEST_STOP = 1000
"""Characters of a string that ends a text."""
MOST_STOPS = 4
MOST_SEEDS = 2**32
DEFAULT_TOKENS = 16
"""Tokens of a completion for which none were asked for, as in OpenAI's API."""

_IGNORED = {"user", "metadata", "store", "safety_identifier"}
"""Notes to the provider, which change nothing in an answer."""
_NEUTRAL: dict[str, tuple[Any, ...]] = {
    "frequency_penalty": (0,), "presence_penalty": (0,), "logit_bias": ({},), "logprobs": (False, 0),
    "top_logprobs": (0,), "suffix": ("",), "best_of": (1,), "tools": ([],), "tool_choice": ("none",),
    "response_format": ({"type": "text"},), "functions": ([],),
}  # fmt: skip
"""What is not there, and the values that do not ask for it (beside null)."""


class Refused(Exception):
    """A request that cannot be served, in the shape of OpenAI's errors.

    Attributes:
      status: of the HTTP answer.
      message: for a person.
      param: the field that is wrong.
      code: a name for programs.
    """

    def __init__(self, status: int, message: str, param: str | None = None, code: str | None = None) -> None:
        super().__init__(message)
        self.status, self.message, self.param, self.code = status, message, param, code

    @property
    def body(self) -> dict[str, Any]:
        """The JSON of the answer."""
        kind = "invalid_request_error" if self.status < 500 else "server_error"
        return {"error": {"message": self.message, "type": kind, "param": self.param, "code": self.code}}


@dataclass(frozen=True)
class Ask:
    """A checked request.

    Attributes:
      prompts: texts or ids; of a conversation none.
      messages: of a conversation.
      tokens: the most of each answer; None is all that there is room for.
      count: answers for each prompt, n.
      sampling: how they are drawn; answer i has the choice i.
      stops: strings that end an answer.
      stream: send it while it appears.
      usage: the stream ends with the numbers of tokens.
      echo: begin with the prompt.
    """

    prompts: tuple[str | list[int], ...]
    messages: tuple[dict[str, str], ...]
    tokens: int | None
    count: int
    sampling: Sampling
    stops: tuple[str, ...]
    stream: bool
    usage: bool
    echo: bool


def read_json(content: bytes) -> Mapping[str, Any]:
    """The object that a body holds; Refused where there is none."""
    try:
        found = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise Refused(400, f"the body is no JSON: {error}") from None
    if not isinstance(found, dict):
        raise Refused(400, "the body must be a JSON object.")
    return found


def read_ask(body: Mapping[str, Any], *, chat: bool, model: str) -> Ask:
    """A request, checked.

    Args:
      body: of the POST.
      chat: it is of `/v1/chat/completions`.
      model: the name of the one that is served.

    Raises:
      Refused: something is wrong with it.
    """
    fields = _Fields(body)
    asked = fields.text("model", model)
    if asked != model:
        raise Refused(404, f"there is no model {asked!r} here; the one that is served is {model!r}.", "model",
                      "model_not_found")  # fmt: skip
    tokens: int | None = fields.whole("max_tokens", 0 if chat else DEFAULT_TOKENS, 1, 10**9)
    if chat:
        tokens = fields.whole("max_completion_tokens", tokens or 0, 1, 10**9) or None
    sampling = Sampling(
        temperature=fields.number("temperature", 1.0, 0.0, 100.0), top_k=fields.whole("top_k", 0, 1, 10**9) or None,
        top_p=fields.number("top_p", 1.0, 1e-6, 1.0), min_p=fields.number("min_p", 0.0, 0.0, 1.0),
        seed=fields.whole("seed", -1, 0, MOST_SEEDS - 1),
    )  # fmt: skip
    if sampling.seed < 0:
        sampling = sampling._replace(seed=secrets.randbelow(MOST_SEEDS))
    ask = Ask(
        prompts=() if chat else _prompts(fields.take("prompt", "")),
        messages=_messages(fields.take("messages", None)) if chat else (),
        tokens=tokens, count=fields.whole("n", 1, 1, 1024), sampling=sampling,
        stops=_stops(fields.take("stop", ())), stream=fields.flag("stream"),
        usage=_usage(fields.take("stream_options", {})), echo=not chat and fields.flag("echo"),
    )  # fmt: skip
    fields.refuse_others()
    return ask


class _Fields:
    """A request's fields, each taken once; null is as good as none."""

    def __init__(self, body: Mapping[str, Any]) -> None:
        self._left = {name: value for name, value in body.items() if value is not None}

    def take(self, name: str, default: Any) -> Any:
        return self._left.pop(name, default)

    def text(self, name: str, default: str) -> str:
        value = self.take(name, default)
        if not isinstance(value, str):
            raise Refused(400, f"'{name}' must be a string, not {_shown(value)}.", name)
        return value

    def flag(self, name: str) -> bool:
        value = self.take(name, False)
        if not isinstance(value, bool):
            raise Refused(400, f"'{name}' must be true or false, not {_shown(value)}.", name)
        return value

    def number(self, name: str, default: float, least: float, most: float) -> float:
        value = self.take(name, None)
        if value is None:
            return default
        if isinstance(value, bool) or not isinstance(value, int | float) or not least <= value <= most:
            raise Refused(400, f"'{name}' must be a number from {least:g} to {most:g}, not {_shown(value)}.", name)
        return float(value)

    def whole(self, name: str, default: int, least: int, most: int) -> int:
        value = self.take(name, None)
        if value is None:
            return default
        if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
            raise Refused(400, f"'{name}' must be a whole number from {least} to {most}, not {_shown(value)}.", name)
        return value

    def refuse_others(self) -> None:
        for name, value in self._left.items():
            if name in _IGNORED:
                continue
            if name not in _NEUTRAL:
                raise Refused(400, f"unknown field '{name[:99]}'.", name[:99])
            if value not in _NEUTRAL[name]:
                raise Refused(400, f"'{name}' is not supported here: leave it out.", name, "unsupported_parameter")


def _shown(value: Any) -> str:
    text = "NaN" if isinstance(value, float) and math.isnan(value) else json.dumps(value)
    return text if len(text) < 50 else f"{text[:47]}..."


def _prompts(given: Any) -> tuple[str | list[int], ...]:
    """A text, texts, ids, or lists of ids."""
    if isinstance(given, str) or _are_ids(given):
        return (given,)
    if isinstance(given, list) and given and all(isinstance(one, str) or _are_ids(one) for one in given):
        return tuple(given)
    raise Refused(400, "'prompt' must be a string, a list of strings, a list of token ids, or a list of such lists; "
                  "an empty string, but no empty list.", "prompt")  # fmt: skip


def _are_ids(given: Any) -> bool:
    return isinstance(given, list) and bool(given) and all(type(one) is int for one in given)


def _messages(given: Any) -> tuple[dict[str, str], ...]:
    if not isinstance(given, list) or not given:
        raise Refused(400, "'messages' must be a list of at least one message.", "messages")
    return tuple(_message(one, i) for i, one in enumerate(given))


def _message(given: Any, i: int) -> dict[str, str]:
    """`role` and `content`; a content of several parts of text is one text."""
    content = given.get("content") if isinstance(given, dict) else None
    if isinstance(content, list):
        parts = [
            part.get("text") if isinstance(part, dict) and part.get("type") == "text" else None for part in content
        ]
        content = "".join(parts) if all(isinstance(part, str) for part in parts) else None  # type: ignore[arg-type]
    if not isinstance(content, str) or not isinstance(given.get("role"), str):
        raise Refused(400, "each message must be an object with 'role' and 'content', both text.", f"messages[{i}]")
    return {"role": given["role"], "content": content}


def _stops(given: Any) -> tuple[str, ...]:
    stops: Sequence[Any] = [given] if isinstance(given, str) else given
    right = isinstance(stops, list | tuple) and all(isinstance(stop, str) for stop in stops)
    if not right or len(stops) > MOST_STOPS or not all(0 < len(stop) <= LONGEST_STOP for stop in stops):
        raise Refused(400, f"'stop' must be a string or up to {MOST_STOPS} strings, each of 1 to {LONGEST_STOP} "
                      "characters.", "stop")  # fmt: skip
    return tuple(stops)


def _usage(given: Any) -> bool:
    wanted = given.get("include_usage", False) if isinstance(given, dict) else None
    if not isinstance(wanted, bool) or given.keys() - {"include_usage", "include_obfuscation"}:
        raise Refused(400, "'stream_options' may hold 'include_usage', true or false.", "stream_options")
    return wanted
