"""Hand-written programs to measure others by; some in processes of their own, which take steps when they are told."""

from __future__ import annotations

import importlib.util
import multiprocessing
from collections.abc import Callable, Mapping, Sequence
from multiprocessing.connection import Connection
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from lmlab.errors import LmlabError

Batch = Mapping[str, np.ndarray]


def load_module(path: Path) -> ModuleType:
    """The module in a file that is in no package."""
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None and spec.loader is not None, path
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def stepping(module: Any, shapes: Mapping[str, Any], batches: Sequence[Batch]) -> Callable[[int], None]:
    """Takes steps of a hand-written program, on batches that lie ready in memory.

    Args:
      module: has `make(*, vocab, width, layers, heads, seq_len, batch, learning_rate) -> (state, step)`,
        `step(state, tokens, targets) -> (state, loss)` and `sync(loss)`, which returns when the step is done.
      shapes: what `make` is called with.
      batches: read in turn.
    """
    state, step = module.make(**shapes)

    def take(steps: int) -> None:
        nonlocal state
        for number in range(steps):
            batch = batches[number % len(batches)]
            state, loss = step(state, batch["tokens"], batch["targets"])
        module.sync(loss)

    return take


def stepping_apart(path: Path, shapes: Mapping[str, Any], batches: Sequence[Batch]) -> Callable[[int], None]:
    """The same, in a process that ends with this one.

    Raises:
      ModuleNotFoundError: a library that the program needs is not installed; its name is that of the error.
      LmlabError: the program failed.
    """
    context = multiprocessing.get_context("spawn")
    ours, its = context.Pipe()
    process = context.Process(target=_serve, args=(path, dict(shapes), list(batches), its), daemon=True)
    process.start()
    its.close()

    def answer() -> None:
        try:
            missing, failure = ours.recv()
        except EOFError:
            raise LmlabError(f"{path}: its process ended by itself.") from None
        if missing:
            raise ModuleNotFoundError(failure, name=missing)
        if failure:
            raise LmlabError(f"{path}: {failure}")

    answer()

    def take(steps: int) -> None:
        ours.send(steps)
        answer()

    return take


def _serve(path: Path, shapes: Mapping[str, Any], batches: Sequence[Batch], line: Connection) -> None:
    """What the process does: answers with (the name of what is not installed, what went wrong)."""
    try:
        take = stepping(load_module(path), shapes, batches)
        line.send((None, None))
        while True:
            take(line.recv())
            line.send((None, None))
    except EOFError:  # nobody asks any more
        return
    except ModuleNotFoundError as error:
        line.send((error.name, str(error)))
    except Exception as error:
        line.send((None, f"{type(error).__name__}: {error}"))
