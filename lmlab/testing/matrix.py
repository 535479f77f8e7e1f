"""Show which models, losses and kinds of examples go together, why others do not, and prove that they do.

lmlab matrix                     what each model can do, and what each loss asks for
lmlab matrix bert mlm            whether these two fit, and with which kinds of examples
lmlab matrix --test              trains a small run of everything that fits
"""

from __future__ import annotations

import argparse
import gc
import multiprocessing
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from lmlab import examples as kinds
from lmlab import registry
from lmlab.capabilities import capabilities_of, named
from lmlab.cli.configuration import add_plugins
from lmlab.cli.table import print_heading, print_table
from lmlab.config import resolve
from lmlab.contracts import ChoiceBatch
from lmlab.data.features import CONVERSIONS
from lmlab.errors import ConfigError, LmlabError
from lmlab.parallel.compiling import jit_once
from lmlab.registry import article, losses, models
from lmlab.testing.tiny import BASE, tiny_bindings, with_parts
from lmlab.training.compilation_cache import use_compilation_cache
from lmlab.training.program import Program
from lmlab.training.state import State

TEXT = {
    "experiment.tokenizer": "@bytes",
    "bytes.end_of_text": "256",
    "bytes.specials": "['mask', 'separator', 'classify', 'sentinel_0', 'sentinel_1', 'sentinel_2']",
    "experiment.seq_len": "23",
}
DATASETS: dict[type, dict[str, str]] = {
    kinds.Text: {"experiment.dataset": "@text_files", **TEXT},
    kinds.Document: {"experiment.dataset": "@document_files", **TEXT},
    kinds.TextPair: {"experiment.dataset": "@tsv_pairs", **TEXT},
    kinds.LabelledText: {"experiment.dataset": "@table_labelled", **TEXT},
    kinds.TaggedText: {"experiment.dataset": "@conll", **TEXT},
    kinds.Question: {"experiment.dataset": "@squad_json", **TEXT, "experiment.seq_len": "61"},
    kinds.Conversation: {"experiment.dataset": "@conversations_jsonl", **TEXT},
    kinds.Tokens: {
        "experiment.dataset": "@random_tokens",
        "random_tokens.vocab": "263",
        "random_tokens.specials": "['end', 'mask', 'separator', 'classify', 'first', 'second', 'third']",
        "experiment.seq_len": "23",
    },
    kinds.TokenSequence: {
        "experiment.dataset": "@hmm_source",
        "hmm_source.symbols": "261",
        "hmm_source.length": "23",
        "experiment.seq_len": "23",
    },
}
"""A dataset of each kind of examples that is here without being fetched, and the tokenizer that goes with it.

Vocabulary and length are the same in most, so that cells which differ in the examples alone are one program, of which
the compilation cache has the second copy.
"""
CHOICES = {"experiment.dataset": "@choices_jsonl", **TEXT, "experiment.seq_len": "37"}
"""The same for questions of which the answer is one of several choices."""
ALONE = {"mesh.data": "1", "experiment.partitioner": "@mesh", "experiment.global_batch_size": "6"}
"""One device, and so few rows that to run a program is little beside compiling it."""


@dataclass(frozen=True)
class Cell:
    """A model, a loss and a kind of examples.

    Attributes:
      model, loss: names.
      example: the kind.
      reason: why they do not fit; None where they do.
    """

    model: str
    loss: str
    example: type
    reason: str | None

    def __str__(self) -> str:
        return f"{self.model}-{self.loss}-{self.example.__name__}"


def cells() -> Iterator[Cell]:
    """All cells of the matrix, in the order of the names; imports every model and loss."""
    for model in models.names():
        for loss in losses.names():
            for example in DATASETS:
                yield Cell(model, loss, example, misfit(model, loss) or unreadable(loss, example))


def misfit(model: str, loss: str) -> str | None:
    """Why a model cannot serve a loss; None where it can."""
    component: Any = models.get(model)
    needs = component_of(loss).needs
    serves = getattr(component, "LOSSES", (loss,))
    if issubclass(component, needs):
        return None if loss in serves else f"'{model}' serves {', '.join(serves)} only"
    has = " and ".join(article(c.__name__) for c in capabilities_of(component)) or "nothing that a loss asks for"
    return f"'{loss}' needs {article(named(needs))}; '{model}' is {has}"


def unreadable(loss: str, example: type) -> str | None:
    """Why batches for a loss are not made of such examples; None where they are."""
    reads = component_of(loss).reads
    if (example, reads) in CONVERSIONS:
        return None
    return f"'{loss}' reads a {reads.__name__}, which is not made of {example.__name__}"


def component_of(loss: str) -> Any:
    """The class of a loss."""
    return losses.get(loss)


def train_cell(cell: Cell) -> float:
    """Trains the smallest model of a cell for a few steps, from nothing but the three names.

    Returns:
      The loss of the last step.

    Raises:
      AssertionError: a number is not finite, nothing was predicted, or no parameter has moved.
    """
    program = Program(resolve([], ["\n".join(f"{key} = {value}" for key, value in bindings(cell).items())]))
    batches = [program.data.train.batch(k) for k in range(3)]
    stacked = {name: jnp.asarray(np.stack([batch[name] for batch in batches])) for name in batches[0]}

    begun = _begun(cell.model, program)
    last, metrics = jax.device_get(_compiled(program, begun, stacked)(begun, stacked))
    before, after, loss, skipped = begun.params, last.params, metrics["loss"], metrics["skipped"]
    assert np.isfinite(loss[0]).all() and not skipped[0].any(), f"{cell}: the loss is {loss[0]}"
    assert (loss[1] > 0).all(), f"{cell}: there was nothing to predict"
    assert all(np.isfinite(value).all() for value in after.values()), f"{cell}: a parameter is not finite"
    assert any((after[path] != before[path]).any() for path in before), f"{cell}: no parameter has moved"
    return float(loss[0][-1] / loss[1][-1])


_BEGUN: dict[Any, State] = {}


def _begun(model: str, program: Program) -> State:
    """A state before the first step; the same one for programs of a model of which all shapes are the same."""
    shapes = jax.eval_shape(program.init, program.key)
    key = (model, str(shapes))
    if key not in _BEGUN:
        _BEGUN[key] = jax.device_get(jit_once(program.init)(program.key))
    return _BEGUN[key]


_COMPILED: dict[Any, jax.stages.Compiled] = {}


def _compiled(program: Program, begun: State, batches: dict[str, jax.Array]) -> jax.stages.Compiled:
    """The steps over some batches; the same ones where another cell's were lowered to the same text."""
    lowered = jit_once(lambda *given: jax.lax.scan(program.step, *given)).lower(begun, batches)
    key = (lowered.as_text(), lowered.in_tree)  # the text leaves out arguments that are not read
    if key not in _COMPILED:
        _COMPILED[key] = lowered.compile()
    return _COMPILED[key]


def bindings(cell: Cell) -> dict[str, str]:
    """The experiment of a cell, as gin text by key: three names, and the smallest sizes of what they name."""
    choosing = cell.example is kinds.Question and component_of(cell.loss).reads is ChoiceBatch
    data = CHOICES if choosing else DATASETS[cell.example]
    chosen = {**data, "experiment.model": f"@{cell.model}", "experiment.loss": f"@{cell.loss}"}
    own: dict[str, str] = {}
    for entry in (models.entry(cell.model), losses.entry(cell.loss)):
        own |= {key: value for key, value in tiny_bindings(entry).items() if not _of_data(key)}
    return with_parts({**BASE, **ALONE, **own, **chosen}, (cell.model, cell.loss))


def _of_data(key: str) -> bool:
    """Whether a binding chooses or shapes the data, which the cell does itself."""
    component, _, parameter = key.partition(".")
    if component == "experiment":
        return parameter in ("dataset", "tokenizer", "model", "loss", "seq_len")
    entry = registry.find(component)
    return entry is not None and entry.kind in ("dataset", "tokenizer")


# --- The command ----------------------------------------------------------------------------------------------


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds this command's arguments."""
    parser.add_argument("model", nargs="?", metavar="MODEL", help="a model")
    parser.add_argument("loss", nargs="?", metavar="LOSS", help="a loss")
    parser.add_argument("--test", action="store_true", help="train a small run of each cell that fits (and is named)")
    add_plugins(parser)


def run(args: argparse.Namespace) -> int:
    """Prints the matrix, or trains its cells; exit code 1 where one of them fails."""
    registry.scan_installed_plugins()
    for plugin in args.plugins:
        registry.load_plugin(plugin)
    for registered, name in ((models, args.model), (losses, args.loss)):
        if name is not None:
            registered.entry(name)
    found = [c for c in cells() if args.model in (None, c.model) and args.loss in (None, c.loss)]
    if args.test:
        return _test([cell for cell in found if cell.reason is None], args.plugins)
    if args.model is not None:
        _print_one(found, args.loss)
    else:
        _print_all(found)
    return 0


def _print_all(found: list[Cell]) -> None:
    print_heading("Which losses each model serves")
    rows = []
    for model in dict.fromkeys(cell.model for cell in found):
        serves = dict.fromkeys(cell.loss for cell in found if cell.model == model and misfit(model, cell.loss) is None)
        can: Any = models.get(model)
        rows.append([model, ", ".join(c.__name__ for c in capabilities_of(can)), ", ".join(serves) or "none"])
    print_table(rows, ("model", "is", "losses"))
    print_heading("\nWhich examples each loss reads")
    rows = []
    for loss in dict.fromkeys(cell.loss for cell in found):
        read = [example.__name__ for example in DATASETS if unreadable(loss, example) is None]
        rows.append([loss, named(component_of(loss).needs), ", ".join(read) or "none"])
    print_table(rows, ("loss", "needs", "examples"))
    fitting = sum(cell.reason is None for cell in found)
    print(f"\n{fitting} of {len(found)} combinations fit; the others are refused: lmlab matrix MODEL LOSS says why.")


def _print_one(found: list[Cell], loss: str | None) -> None:
    rows = []
    for name in dict.fromkeys(cell.loss for cell in found):
        of_loss = [cell for cell in found if cell.loss == name]
        fits = [cell.example.__name__ for cell in of_loss if cell.reason is None]
        why = misfit(of_loss[0].model, name) or ("" if fits else of_loss[0].reason or "")
        rows.append([name, ", ".join(fits) or "-", why])
        if loss is not None and fits:
            rows += [["", f"not {cell.example.__name__}", cell.reason] for cell in of_loss if cell.reason]
    print_table(rows, ("loss", "examples", "why not"))


def _test(found: list[Cell], plugins: Sequence[str]) -> int:
    """Trains the cells in two processes, and prints a line for each."""
    if not found:
        raise ConfigError("nothing fits: lmlab matrix MODEL LOSS says why.")
    failed = 0
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(2, mp_context=context, initializer=_begin, initargs=(tuple(plugins),)) as pool:
        for cell, problem in zip(found, pool.map(_problem, found, chunksize=5), strict=True):
            failed += problem is not None
            print(f"{cell.model:20} {cell.loss:20} {cell.example.__name__:14} {problem or 'trained'}", flush=True)
    print(f"{len(found) - failed} of {len(found)} trained")
    return 1 if failed else 0


def _begin(plugins: tuple[str, ...]) -> None:
    """What a process needs before it trains cells."""
    use_compilation_cache()
    registry.scan_installed_plugins()
    for plugin in plugins:
        registry.load_plugin(plugin)
    gc.set_threshold(50_000, 20, 20)  # compiled programs stay: to look for cycles among them was 4 % of the CPU


def _problem(cell: Cell) -> str | None:
    try:
        train_cell(cell)
    except (AssertionError, LmlabError) as error:
        return str(error)
    return None
