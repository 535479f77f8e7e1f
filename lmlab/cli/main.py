"""`lmlab COMMAND`: finds the command, runs it, and turns what is raised into a message and an exit code."""

from __future__ import annotations

import argparse
import contextlib
import difflib
import importlib
import os
import sys
import traceback
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType

from lmlab.errors import LmlabError, OutOfMemory, is_out_of_memory

COMMANDS: dict[str, tuple[str, str]] = {
    "train": ("lmlab.cli.train", "train a configuration, or go on with a run that was left unfinished"),
    "sweep": ("lmlab.cli.sweep", "run the trials of a sweep, or go on with what is left of it"),
    "status": ("lmlab.cli.status", "show how far a sweep is"),
    "eval": ("lmlab.cli.eval", "measure a run's checkpoint"),
    "generate": ("lmlab.cli.generate", "sample text from a run"),
    "serve": ("lmlab.cli.serve", "answer completion requests over HTTP, and show a page to try the model on"),
    "chat": ("lmlab.cli.chat", "talk with an instruction model in the terminal"),
    "translate": ("lmlab.cli.translate", "write the targets of sources, by a run of an encoder-decoder"),
    "summarize": ("lmlab.cli.translate", "the same as translate, for runs that learned to summarise"),
    "score": ("lmlab.cli.score", "say how probable texts are under a run's model, and which of them is the most"),
    "embed": ("lmlab.cli.embed", "make vectors of texts by a run's model, and find those that are near"),
    "fill": ("lmlab.cli.fill", "fill the masks in a text, by a run of an encoder"),
    "neighbours": ("lmlab.cli.neighbours", "show the words nearest to a word, by a run's vectors"),
    "analogy": ("lmlab.cli.analogy", "answer 'A is to B as C is to ...?' by a run's vectors"),
    "attention": ("lmlab.cli.attention", "draw what a run's attention looks at in a text"),
    "interpolate": ("lmlab.cli.interpolate", "write the texts between two texts, of a text VAE's run"),
    "import": ("lmlab.cli.import_checkpoint", "make a run folder of a checkpoint of Hugging Face's Transformers"),
    "merge": ("lmlab.cli.merge", "make a run folder of a run with an adapter, which has none any more"),
    "export": ("lmlab.cli.export", "write a run's model for other programs: Transformers, or jax alone (StableHLO)"),
    "quantize": ("lmlab.cli.quantize", "make a run of a run whose matrices are integers of 8 or 4 bits"),
    "check": ("lmlab.cli.check", "say what a configuration would do and cost, without computing anything"),
    "coordinates": ("lmlab.cli.coordinates", "check how the size of activations follows a model's width (muP)"),
    "replay": ("lmlab.cli.replay", "run one step of a run again, looking for the first operation that is not finite"),
    "data": ("lmlab.cli.data", "fetch corpora, list them, show training rows, and tokenise them once"),
    "tokenizer": ("lmlab.cli.tokenizer", "train a tokenizer to a file, and show what one makes of a text"),
    "list": ("lmlab.cli.list", "list components by kind"),
    "describe": ("lmlab.cli.describe", "show one component: what it is, its parameters and defaults"),
    "diff": ("lmlab.cli.diff", "compare the configurations of two runs or gin files"),
    "report": ("lmlab.cli.report", "show what a sweep has found, with its uncertainty"),
    "scaling": ("lmlab.cli.scaling", "fit a scaling law to a sweep over compute, and say what it foretells"),
    "compare": ("lmlab.cli.compare", "compare two runs: configuration, data, curves, results"),
    "reproduce": ("lmlab.cli.reproduce", "measure the claims of a paper, and say which were met"),
    "papers": ("lmlab.cli.papers", "make the skeleton of a paper whose claims are measured"),
    "matrix": ("lmlab.testing.matrix", "show which models, losses and examples go together, and train each of them"),
    "bench": ("lmlab.cli.bench", "measure the training step against a hand-written one"),
}
"""Each command's module and what it does; only the chosen one's module is imported."""

INTERRUPTED = 130
BROKEN_PIPE = 141
"""128 + SIGPIPE: what the shell shows for other programs whose reader went away."""


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command line; returns the exit code.

    A mistake of the user's (`LmlabError`) is one message and the exit code of its kind; anything else that escapes is
    a bug, and exits with 1. A traceback is shown only with --debug.
    """
    words = list(sys.argv[1:] if argv is None else argv)
    debug = "--debug" in words
    try:
        return _run([word for word in words if word != "--debug"])
    except LmlabError as error:
        return _fail(str(error), error.exit_code, debug)
    except KeyboardInterrupt:
        return _fail("interrupted", INTERRUPTED, debug)
    except BrokenPipeError:
        with contextlib.suppress(OSError):  # what is still buffered has no reader: keep the interpreter from saying so
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return BROKEN_PIPE
    except Exception as error:
        if is_out_of_memory(error):
            return _fail(_out_of_memory(error), OutOfMemory.exit_code, debug)
        return _fail(_bug(error), 1, debug)


def _run(words: list[str]) -> int:
    parser, commands = _parser()
    chosen = next((word for word in words if not word.startswith("-")), None)
    module = None
    if chosen in COMMANDS:
        module = importlib.import_module(COMMANDS[chosen][0])
        _describe(commands[chosen], module)
        module.add_arguments(commands[chosen])
    try:
        if chosen is not None and module is None:
            near = difflib.get_close_matches(chosen, COMMANDS, n=1)
            parser.error(f"no command '{chosen}'.{f' Did you mean {near[0]!r}?' if near else ''} (lmlab --help)")
        args = parser.parse_args(words)
    except SystemExit as done:  # --help, --version, or a usage error that argparse has printed
        return int(done.code or 0)
    if module is None:
        parser.print_help()
        return 2
    code = int(module.run(args))
    sys.stdout.flush()
    return code


def _parser() -> tuple[argparse.ArgumentParser, dict[str, argparse.ArgumentParser]]:
    parser = argparse.ArgumentParser(
        prog="lmlab",
        description="A laboratory for language models: a model, a loss and a dataset are names in a gin file.",
        epilog="Start: lmlab train experiments/quickstart.gin",
    )
    parser.add_argument("--debug", action="store_true", help="show the traceback of an error (anywhere on the line)")
    parser.add_argument("--version", action=_Version, nargs=0, help="show the version of lmlab and exit")
    chosen = parser.add_subparsers(metavar="COMMAND", title="commands")
    return parser, {name: chosen.add_parser(name, help=summary) for name, (_, summary) in COMMANDS.items()}


class _Version(argparse.Action):
    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> None:
        import lmlab

        print(f"lmlab {lmlab.__version__}")
        parser.exit()


def _describe(parser: argparse.ArgumentParser, module: ModuleType) -> None:
    parser.description = module.__doc__
    parser.formatter_class = argparse.RawDescriptionHelpFormatter


def _fail(message: str, code: int, debug: bool) -> int:
    with contextlib.suppress(OSError):
        sys.stdout.flush()  # what was printed before comes before
    if debug:
        traceback.print_exc()
    print(f"lmlab: {message}", file=sys.stderr)
    return code


def _out_of_memory(error: Exception) -> str:
    said = str(error).strip().split("\n")[0] or "Python could not allocate more"
    return (
        f"out of memory: {said}\n"
        "  Raise experiment.microbatches (the numbers stay the same), lower experiment.global_batch_size or the size "
        "of the model, or use more devices. 'lmlab check' shows what parameters and optimizer take."
    )


def _bug(error: Exception) -> str:
    """The line for what should not happen: what, where, and in whose code."""
    frames = traceback.extract_tb(error.__traceback__)
    package = str(Path(__file__).parent.parent)
    inside = [frame for frame in frames if frame.filename.startswith(package)]
    plugins = [frame for frame in frames if frame.filename in _plugin_files()]
    frame = (plugins or inside or list(frames))[-1]
    whose = "in a plug-in" if plugins else "in lmlab"
    message = str(error).strip().split("\n")[0]
    return (
        f"{type(error).__name__}: {message}\n"
        f"  This is a bug {whose}, at {frame.filename}:{frame.lineno}. "
        "Run the same command with --debug for the traceback."
    )


def _plugin_files() -> set[str]:
    from lmlab.registry import CATALOGUE

    return {entry.file for entry in CATALOGUE.entries().values() if not entry.module.startswith("lmlab.")}


if __name__ == "__main__":
    sys.exit(main())
