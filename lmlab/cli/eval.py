"""Measure a run's checkpoint with the run's evaluators, on a whole split; the result also goes into the run folder.

lmlab eval runs/quickstart --split test
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

from lmlab.cli.table import print_heading, print_table
from lmlab.config import build, spec_hash
from lmlab.contracts import FrozenDict, Spec
from lmlab.errors import ConfigError
from lmlab.parallel.mesh import Mesh
from lmlab.training.compilation_cache import use_compilation_cache
from lmlab.training.files import replace_json, writing
from lmlab.training.program import Program
from lmlab.training.run import Run


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds this command's arguments."""
    parser.add_argument("run", metavar="RUN", help="a run folder")
    parser.add_argument("--split", help="valid, test or train (default: as the run's evaluators say)")
    parser.add_argument("--batches", type=int, help="only so many global batches (default: the whole split)")
    parser.add_argument("--step", type=int, help="the checkpoint of this step (default: the newest)")
    parser.add_argument("--one-device", action="store_true", help="use one device, not the layout of the training")


def run(args: argparse.Namespace) -> int:
    """Prints the metrics as a table and writes them to `eval/` in the run folder."""
    use_compilation_cache()
    found = Run(args.run)
    partitioner = Mesh(data=1) if args.one_device else None
    program = Program(found.resolved, saved_tokenizer=found.files.saved_tokenizer(), partitioner=partitioner)
    evaluators = [_with(spec, args.split, args.batches) for spec in program.experiment.evaluators]
    if not evaluators:
        raise ConfigError(f"{args.run} was trained without evaluators: there is nothing to measure.")
    measurements = [build(spec).bind(program) for spec in evaluators]
    state, note = Run(args.run, program).restore(args.step)
    start = time.perf_counter()
    metrics = {name: value for measure in measurements for name, value in measure(state).items()}
    seconds = time.perf_counter() - start
    print_heading(f"{args.run}, step {note.step} ({seconds:.1f} s)")
    print_table(
        [[name, f"{value:,.5g}" if isinstance(value, float) else f"{value:,}"] for name, value in metrics.items()]
    )
    saved = {
        "step": note.step,
        "spec": spec_hash(found.resolved.spec),
        "evaluators": [{"name": spec.name, **spec.kwargs} for spec in evaluators],
        "metrics": metrics,
        "seconds": seconds,
    }
    _save(Path(args.run) / "eval", f"{note.step}-{args.split or 'default'}", saved)
    return 0


def _with(spec: Spec, split: str | None, batches: int | None) -> Spec:
    """The evaluator with the split and number of batches asked for, where it has such parameters."""
    asked = {"batches": batches, **({"split": split} if split else {})}
    return Spec(
        spec.kind, spec.name, FrozenDict({**spec.kwargs, **{k: v for k, v in asked.items() if k in spec.kwargs}})
    )


def _save(folder: Path, name: str, saved: dict) -> None:
    with writing(folder):
        folder.mkdir(exist_ok=True)
    replace_json(folder / f"{name}.json", saved)
    print(f"written to {folder / name}.json")
