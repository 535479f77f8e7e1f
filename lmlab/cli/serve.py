"""Serve a run's model over HTTP: OpenAI's completion endpoints, and a page to try it on, for many clients at once.

lmlab serve runs/gpt2                              # http://127.0.0.1:8000, for this machine only
curl http://127.0.0.1:8000/v1/completions -H 'Content-Type: application/json' \\
     -d '{"prompt": "A story", "max_tokens": 40, "temperature": 0}'
LMLAB_TOKEN=... lmlab serve runs/gpt2 --host 0.0.0.0   # for others, who must know the token

Texts are written side by side, at most --slots of them; --waiting more wait for a place, and what comes then is told to
come again (429). Ctrl-C or SIGTERM ends the server: texts that are being written have five seconds to come to an end.
"""

from __future__ import annotations

import argparse
import ipaddress
import os
import socket
from pathlib import Path
from typing import Any

from lmlab.contracts import CausalLM
from lmlab.data.chat_template import ChatTemplate
from lmlab.data.optional import imported
from lmlab.errors import ConfigError, DataError
from lmlab.generation.continuous import Engine
from lmlab.generation.saved import SavedRun
from lmlab.generation.slots import Slots
from lmlab.generation.writing import positions
from lmlab.training.compilation_cache import use_compilation_cache
from lmlab.training.program import Program

LONGEST = 1024
"""Tokens of a text where neither the model nor the user says how many."""
TOKEN = "LMLAB_TOKEN"
"""The environment variable that holds the token."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds this command's arguments."""
    parser.add_argument("run", metavar="RUN", help="a run folder of a causal model with a tokenizer")
    parser.add_argument("--host", default="127.0.0.1", help="the address to listen on (default: 127.0.0.1)")
    parser.add_argument("--port", type=int, default=8000, help="0 takes a free one (default: 8000)")
    parser.add_argument("--token", help=f"what clients must know; better by the environment variable {TOKEN}, since "
                        "other users of the machine see a command's words")  # fmt: skip
    parser.add_argument("--slots", type=int, default=32, help="texts written side by side (default: 32)")
    parser.add_argument("--waiting", type=int, default=128, help="texts that may wait for a place (default: 128)")
    parser.add_argument("--length", type=int, help="the most tokens of a prompt with its text (default: what the model "
                        f"has positions for, or {LONGEST})")  # fmt: skip
    parser.add_argument("--name", help="the model's name for clients (default: that of the folder)")
    add_template(parser)
    parser.add_argument("--step", type=int, help="the checkpoint of this step (default: the newest)")


def run(args: argparse.Namespace) -> int:
    """Serves until a signal ends it."""
    token = os.environ.get(TOKEN) if args.token is None else args.token
    _check(args, token)
    for module in ("starlette", "uvicorn"):
        imported(module, "lmlab serve", "serve")
    from lmlab.interop.answers import Served
    from lmlab.interop.http_server import serve
    from lmlab.interop.serving import make_app

    listening = _listen(args.host, args.port)
    use_compilation_cache()
    saved = SavedRun(args.run)
    program = saved.program
    template = template_of(program, args.template)
    slots = _slots(saved, args)
    slots.compile(lambda what: print(what, flush=True))
    engine = Engine(slots, waiting=args.waiting)
    assert program.tokenizer is not None
    served = Served(
        args.name or Path(args.run).resolve().name, engine, program.tokenizer, slots.length, template,
        ends_of(program, template), args.slots + args.waiting,
    )  # fmt: skip
    listening.listen(1024)  # from here on, who asks is answered
    host, port = listening.getsockname()[:2]
    address = f"http://{f'[{host}]' if ':' in host else host}:{port}"
    print(f"serving {served.name} ({program.model.size:,} parameters) on {address}, {slots.slots} texts of up to "
          f"{slots.length} tokens side by side{', with a token' if token else ''}", flush=True)  # fmt: skip
    serve(make_app(served, token=token), engine, listening)
    return 0


def add_template(parser: argparse.ArgumentParser) -> None:
    """Adds the argument that names a chat template."""
    parser.add_argument("--template", metavar="FILE", help="a chat template, where the run's tokenizer has none or "
                        "another one is wanted: Jinja, as in a chat_template.jinja")  # fmt: skip


def template_of(program: Program, path: str | None) -> ChatTemplate | None:
    """The chat template of a file, or of the run's tokenizer."""
    own: ChatTemplate | None = getattr(program.tokenizer, "chat_template", None)
    if path is None:
        return own
    try:
        return ChatTemplate(Path(path).read_text(encoding="utf-8"), {} if own is None else own.tokens)
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"--template {path} cannot be read: {error}") from None


def ends_of(program: Program, template: ChatTemplate | None) -> frozenset[int]:
    """Ids that end a text: the tokenizer's end of text and, of an instruction model, the token that ends a turn."""
    tokenizer: Any = program.tokenizer
    ends = {int(tokenizer.end_of_text)}
    turn = None if template is None else template.tokens.get("eos_token")
    if turn is not None and hasattr(tokenizer, "encode_marked"):
        ids = tokenizer.encode_marked(turn)
        ends |= {int(ids[0])} if len(ids) == 1 else set()
    return frozenset(ends)


def check_serves(program: Program, what: str) -> None:
    """ConfigError unless texts can be written side by side: by a causal model with a tokenizer."""
    if not isinstance(program.abstract_model, CausalLM):
        raise ConfigError(
            f"{what} continues texts, which the model '{program.experiment.model.name}' cannot: it is no CausalLM. "
            "Encoder-decoders write by lmlab generate and translate, encoders by lmlab fill."
        )
    if program.tokenizer is None:
        raise ConfigError(f"{what} needs a tokenizer, and this run's data are ids without one.")


def _check(args: argparse.Namespace, token: str | None) -> None:
    for name, least, most in (("port", 0, 65535), ("slots", 1, 4096), ("waiting", 0, 10**6), ("length", 2, 10**7)):
        value = getattr(args, name)
        if value is not None and not least <= value <= most:
            raise ConfigError(f"--{name} {value}: it must be between {least} and {most}.")
    if token is not None and (len(token) < 8 or not token.isascii() or not token.isprintable() or " " in token):
        raise ConfigError("a token has at least 8 printable ASCII characters and no space.")
    if token is None and not _is_loopback(args.host):
        raise ConfigError(
            f"--host {args.host} lets other machines in, which need a token: --token, or the environment "
            f"variable {TOKEN}."
        )


def _is_loopback(host: str) -> bool:
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _listen(host: str, port: int) -> socket.socket:
    """The socket, before anything else takes time; ConfigError where the address cannot be had."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        listening = socket.socket(family, kind, protocol)
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind(address)
    except OSError as error:
        raise ConfigError(f"--host {host} --port {port} cannot be had: {error.strerror or error}.") from None
    return listening


def _slots(saved: SavedRun, args: argparse.Namespace) -> Slots:
    program = saved.program
    check_serves(program, "lmlab serve")
    limit = positions(program.model)
    length = args.length or limit or LONGEST
    if limit is not None and length > limit:
        raise ConfigError(f"--length {length}: the model has positions for {limit} tokens.")
    return Slots(program.model, saved.params(args.step), slots=args.slots, length=length)
