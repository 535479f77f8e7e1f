"""Check a configuration: refuse what cannot run, and say what the rest would cost, without computing anything.

lmlab check experiments/quickstart.gin --set 'gpt.layers = 12'
"""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from lmlab.cli import configuration
from lmlab.cli.table import print_heading, print_table

if TYPE_CHECKING:
    from lmlab.training.program import Program


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds this command's arguments."""
    configuration.add_arguments(parser)


def run(args: argparse.Namespace) -> int:
    """Builds and traces everything that training would, and prints what came out."""
    resolved = configuration.resolve_arguments(args)
    from lmlab.config import build
    from lmlab.training.program import Program

    program = Program(resolved)
    for spec in program.experiment.evaluators:
        build(spec).bind(program)
    for spec in (*program.experiment.hooks, *program.experiment.writers):
        build(spec)
    print_heading(f"configuration {resolved.hash}, identity {resolved.identity}")
    print_table([*_parts(program), *_parameters(program), *_data(program), *_memory(program), *_work(program)])
    return 0


def _parts(program: Program) -> list[list[str]]:
    experiment = program.experiment
    parts = ("model", "loss", "dataset", "tokenizer", "optimizer", "partitioner")
    named = {part: getattr(experiment, part) for part in parts}
    rows = [[part, spec.name] for part, spec in named.items() if spec is not None]
    return [*rows, ["compute dtype", str(program.dtype)]]


def _parameters(program: Program) -> list[list[str]]:
    from lmlab.training.cost import count_by_group

    groups = count_by_group(program.model.shapes)
    rows = [["parameters", f"{program.model.size:,}"], *([f"  {name}", f"{size:,}"] for name, size in groups.items())]
    if program.frozen:
        frozen = sum(program.model.shapes[path].size for path in program.frozen)
        rows.append(["parameters that learn", f"{program.model.size - frozen:,}"])
    return rows


def _data(program: Program) -> list[list[str]]:
    experiment, train = program.experiment, program.data.train
    rows = experiment.steps * experiment.global_batch_size
    return [
        ["vocabulary", f"{program.data.vocab:,}"],
        ["tokens per step", f"{train.tokens_per_step:,}"],
        ["steps", f"{experiment.steps:,} ({rows / train.rows_per_epoch:.2f} epochs of {train.rows_per_epoch:,} rows)"],
        ["tokens", f"{experiment.steps * train.tokens_per_step:,}"],
        *(
            [f"  {name}", f"{value:.1%}" if name.endswith("padding") else f"{value:g}"]
            for name, value in train.notes.items()
        ),
        *([f"  rows of {name}", f"{count:,}"] for name, count in train.realised(experiment.steps).items()),
    ]


def _memory(program: Program) -> list[list[str]]:
    from lmlab.training.cost import device_bytes, total_bytes

    state, batches = program.abstract_state, program.abstract_batches()
    rows = [
        ["memory (without activations)", size_text(total_bytes(state) + total_bytes(batches))],
        ["  of the parameters", size_text(total_bytes(state.params))],
        ["  of the optimizer state", size_text(total_bytes(state.opt_state))],
        ["  of the batch", size_text(total_bytes(batches))],
    ]
    share = device_bytes(state)
    return [*rows, ["  of the state, per device", size_text(share)]] if share != total_bytes(state) else rows


def _work(program: Program) -> list[list[str]]:
    flops, rule = program.step_flops(), 6 * program.model.size * program.data.train.tokens_per_step
    return [
        ["FLOPs per step (matrix products)", f"{flops:.4g}"],
        ["  by the rule 6·N·tokens", f"{rule:.4g}"],
        ["FLOPs of the run", f"{flops * program.experiment.steps:.4g}"],
    ]


def size_text(size: int) -> str:
    """Bytes for a person: `1.5 MiB`."""
    for unit, scale in (("GiB", 2**30), ("MiB", 2**20), ("KiB", 2**10)):
        if size >= scale:
            return f"{size / scale:.1f} {unit}"
    return f"{size} bytes"
