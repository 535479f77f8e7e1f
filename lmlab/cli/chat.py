"""Talk with an instruction model in the terminal: by its chat template, with what was said before.

lmlab chat runs/smollm
lmlab chat runs/mine --template chatml.jinja --system 'You answer in one sentence.'

/reset begins anew, /exit or Ctrl-D leaves, Ctrl-C stops an answer. Where the conversation grows longer than the model
can read, its oldest turns are left out, and that is said. Without a terminal, each line of the input is said in turn.
"""

from __future__ import annotations

import argparse
import contextlib
import signal
import sys
from collections.abc import Iterator, Mapping
from types import FrameType
from typing import Any

from jax import Array

from lmlab.cli.serve import LONGEST, add_template, check_serves, ends_of, template_of
from lmlab.data.chat_template import ChatTemplate
from lmlab.errors import ConfigError
from lmlab.generation.conversation import Conversation
from lmlab.generation.saved import SavedRun
from lmlab.generation.slots import Sampling, Slots
from lmlab.generation.writing import positions
from lmlab.training.compilation_cache import use_compilation_cache


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds this command's arguments."""
    parser.add_argument("run", metavar="RUN", help="a run folder of an instruction model")
    parser.add_argument("--system", metavar="TEXT", help="what stands before the conversation")
    parser.add_argument("--tokens", type=int, default=256, help="the most tokens of an answer (default: 256)")
    parser.add_argument("--temperature", type=float, default=0.7, help="0 takes the most probable token (default: 0.7)")
    parser.add_argument("--top-p", type=float, default=1.0, help="draw from the fewest tokens whose probabilities "
                        "reach P only")  # fmt: skip
    parser.add_argument("--seed", type=int, default=0, help="the same seed answers the same (default: 0)")
    add_template(parser)
    parser.add_argument("--step", type=int, help="the checkpoint of this step (default: the newest)")


def run(args: argparse.Namespace) -> int:
    """Reads what is said and writes the answers, until the input ends."""
    _check(args)
    use_compilation_cache()
    saved = SavedRun(args.run)
    check_serves(saved.program, "lmlab chat")
    template = template_of(saved.program, args.template)
    if template is None:
        raise ConfigError(
            f"{args.run} has no chat template: name one by --template FILE, or continue texts by lmlab generate."
        )
    talk = _conversation(saved, saved.params(args.step), template, args)
    for said in _lines():
        if said == "/exit":
            break
        if said == "/reset":
            talk.reset()
            print("(a new conversation)", flush=True)
        elif said.startswith("/") and " " not in said:
            print(f"(no command {said}: /reset, /exit)", flush=True)
        elif said:
            _answer(talk, said)
    return 0


def _check(args: argparse.Namespace) -> None:
    if args.tokens < 1:
        raise ConfigError(f"--tokens {args.tokens}: it must be at least 1.")
    if not 0 <= args.temperature < float("inf"):
        raise ConfigError(f"--temperature {args.temperature}: it must be at least 0 (0 is greedy).")
    if not 0 < args.top_p <= 1:
        raise ConfigError(f"--top-p {args.top_p}: it must be in (0, 1].")
    if not 0 <= args.seed < 2**32:
        raise ConfigError(f"--seed {args.seed}: it must be between 0 and {2**32 - 1}.")


def _conversation(
    saved: SavedRun, params: Mapping[str, Array], template: ChatTemplate, args: argparse.Namespace
) -> Conversation:
    program = saved.program
    tokenizer: Any = program.tokenizer
    length = positions(program.model) or max(LONGEST, 4 * args.tokens)
    if args.tokens >= length:
        raise ConfigError(f"--tokens {args.tokens}: the model reads and writes {length} tokens at most.")
    encode = getattr(tokenizer, "encode_marked", tokenizer.encode)
    slots = Slots(program.model, params, slots=1, length=length)
    sampling = Sampling(args.temperature, top_p=args.top_p, seed=args.seed)
    return Conversation(
        slots, template, encode, tokenizer.token_bytes(), ends_of(program, template),
        tokens=args.tokens, sampling=sampling, system=args.system,
    )  # fmt: skip


def _lines() -> Iterator[str]:
    """What is typed, line by line; of a pipe, its lines."""
    if not sys.stdin.isatty():
        for line in sys.stdin:
            print(f"> {line.rstrip()}", flush=True)
            yield line.strip()
        return
    with contextlib.suppress(ImportError):
        import readline  # noqa: F401  # lines can be edited, and earlier ones come back
    while True:
        try:
            yield input("> ").strip()
        except EOFError:  # Ctrl-D
            print()
            return
        except KeyboardInterrupt:  # of what is being typed
            print("\n(Ctrl-D or /exit leaves)")


def _answer(talk: Conversation, said: str) -> None:
    """Writes an answer while it comes; Ctrl-C ends it there, and the conversation goes on."""
    stopped = False

    def stop(number: int, frame: FrameType | None) -> None:
        nonlocal stopped
        stopped = True

    before = signal.signal(signal.SIGINT, stop)
    try:
        dropped = talk.say(said)
        if dropped:
            print(f"(the oldest {dropped} message{'s are' if dropped > 1 else ' is'} left out: there is no more room)")
        for piece in talk.answer():
            print(piece, end="", flush=True)
            if stopped:
                talk.stop()
        print(" (stopped)" if stopped else "", flush=True)
    finally:
        signal.signal(signal.SIGINT, before)
