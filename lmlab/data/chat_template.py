"""Chat templates: how an instruction model wants a conversation written, as a Jinja template beside its tokenizer.

Templates come from outside with a model and are run in Jinja's sandbox, with what Transformers gives them: blocks
trimmed, `break` and `continue`, `tojson` that leaves letters as they are, `raise_exception`, `strftime_now`, and
`{% generation %}` around what the model says, which changes nothing.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

from lmlab.data.optional import imported
from lmlab.errors import DataError

FILE = "chat_template.jinja"
"""Its own file beside a tokenizer.json; older checkpoints have it in `CONFIG`."""
CONFIG = "tokenizer_config.json"

_MARKS = ("_generation_begins", "_generation_ends")
"""Names, inside a template, of what is written around what the model says."""

Message = Mapping[str, str]
"""`role` (system, user, assistant) and `content`."""


@dataclass(frozen=True)
class ChatTemplate:
    """A template with the special tokens that it may write.

    Attributes:
      source: Jinja text.
      tokens: `bos_token`, `eos_token` and the like, as they stand in texts.
    """

    source: str
    tokens: Mapping[str, str] = field(default_factory=dict)

    def render(
        self, messages: Sequence[Message], *, add_generation_prompt: bool = False, marks: tuple[str, str] = ("", "")
    ) -> str:
        """The conversation as text; see `render`."""
        opens = add_generation_prompt
        return render(self.source, messages, add_generation_prompt=opens, tokens=self.tokens, marks=marks)


def render(
    template: str,
    messages: Sequence[Message],
    *,
    add_generation_prompt: bool = False,
    tokens: Mapping[str, str] | None = None,
    marks: tuple[str, str] = ("", ""),
) -> str:
    """A conversation as a template writes it.

    Args:
      template: Jinja text.
      messages: the turns in their order.
      add_generation_prompt: open the answer of the model behind the last turn.
      tokens: the values of `bos_token`, `eos_token` and the like in the template.
      marks: written before and behind what stands between `{% generation %}` and its end.

    Raises:
      ConfigError: jinja2 is not installed.
      DataError: the text is no template, or the template refuses these messages.
    """
    jinja = imported("jinja2", "a chat template", "chat")
    given: dict[str, Any] = {"messages": [dict(message) for message in messages], "tools": None, "documents": None}
    given |= dict(zip(_MARKS, marks, strict=True))
    try:
        return str(_compiled(template).render(**given, add_generation_prompt=add_generation_prompt, **(tokens or {})))
    except jinja.TemplateSyntaxError as error:
        raise DataError(f"the chat template is no Jinja template: line {error.lineno}: {error.message}") from None
    except jinja.TemplateError as error:
        raise DataError(f"the chat template refuses this conversation: {error.message}") from None
    except (TypeError, ValueError, KeyError, IndexError, AttributeError, ZeroDivisionError, OverflowError) as error:
        # What the template does wrong with the messages is Python's error, raised inside of it.
        raise DataError(f"the chat template cannot write this conversation: {error}") from None


def read_chat_template(folder: Path) -> ChatTemplate | None:
    """The chat template of a folder in Transformers' layout: `chat_template.jinja`, or what tokenizer_config.json has.

    Raises:
      DataError: one of the files is damaged.
    """
    config = _read_config(folder / CONFIG)
    try:
        source = (folder / FILE).read_text(encoding="utf-8")
    except FileNotFoundError:
        source = _named(config.get("chat_template"))
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{folder / FILE} cannot be read: {error}") from None
    if not isinstance(source, str):
        return None
    named = {name: _content(value) for name, value in config.items() if name.endswith("_token")}
    return ChatTemplate(source, {name: token for name, token in named.items() if isinstance(token, str)})


def write_chat_template(folder: Path, template: ChatTemplate) -> None:
    """Writes the two files that `read_chat_template`, and Transformers, read."""
    (folder / FILE).write_text(template.source, encoding="utf-8")
    config = {"tokenizer_class": "PreTrainedTokenizerFast", **template.tokens}
    (folder / CONFIG).write_text(json.dumps(config, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def _read_config(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise DataError(f"{path} cannot be read: {error}") from None
    if not isinstance(found, dict):
        raise DataError(f"{path} holds no object.")
    return found


def _named(found: Any) -> Any:
    """The default one, where a file has several: `[{"name": ..., "template": ...}]`."""
    if not isinstance(found, list):
        return found
    by_name = {one.get("name"): one.get("template") for one in found if isinstance(one, dict)}
    return by_name.get("default")


def _content(token: Any) -> Any:
    """A special token's text: some files have it in an object, with flags."""
    return token.get("content") if isinstance(token, dict) else token


@functools.lru_cache(maxsize=16)
def _compiled(template: str) -> Any:
    jinja = imported("jinja2", "a chat template", "chat")
    return _environment(jinja).from_string(template)


def _environment(jinja: Any) -> Any:
    sandbox = imported("jinja2.sandbox", "a chat template", "chat")
    found = sandbox.ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=["jinja2.ext.loopcontrols", _generation_tag()]
    )

    def raise_exception(message: str) -> None:
        raise jinja.TemplateError(message)

    found.filters["tojson"] = _to_json
    found.globals["raise_exception"] = raise_exception
    found.globals["strftime_now"] = lambda form: datetime.now().strftime(form)
    return found


def _to_json(value: Any, ensure_ascii: bool = False, indent: Any = None, separators: Any = None,
             sort_keys: bool = False) -> str:  # fmt: skip
    """JSON as it is; Jinja's own filter writes letters for the inside of HTML."""
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)


def _generation_tag() -> Any:
    """The extension that reads `{% generation %} ... {% endgeneration %}` as what stands in between, and its marks."""
    base = imported("jinja2.ext", "a chat template", "chat").Extension
    nodes = imported("jinja2.nodes", "a chat template", "chat")

    def parse(self: Any, parser: Any) -> Any:
        line = next(parser.stream).lineno
        said = parser.parse_statements(("name:endgeneration",), drop_needle=True)
        begins, ends = (nodes.Output([nodes.Name(name, "load")], lineno=line) for name in _MARKS)
        return [begins, *said, ends]

    return type("Generation", (base,), {"tags": {"generation"}, "parse": parse})
