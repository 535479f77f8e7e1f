"""Measure a run's checkpoint with the run's evaluators, on a whole split; the result also goes into the run folder.

lmlab eval runs/quickstart --split test
lmlab eval runs/quickstart --suite minimal_pairs                     # a named set of measurements
lmlab eval runs/quickstart --suite perplexity --set 'text_perplexity.stride = 64'
lmlab eval runs/gpt2 --harness lambada_openai,piqa --limit 100       # tasks of lm-evaluation-harness
lmlab eval runs/gpt2 --harness my_task --include tasks               # a task file of your own

What attention looks at is drawn by `lmlab attention`.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from lmlab.cli.table import print_heading, print_table
from lmlab.config import build, spec_hash, spec_to_json
from lmlab.contracts import FrozenDict, Spec
from lmlab.errors import ConfigError
from lmlab.evaluation.local_params import local_params
from lmlab.evaluation.suites import SUITES, suite_evaluators
from lmlab.interop.harness import HarnessTasks, split_names
from lmlab.parallel.mesh import Mesh
from lmlab.training.compilation_cache import use_compilation_cache
from lmlab.training.files import replace_json, writing
from lmlab.training.program import Program
from lmlab.training.run import Run


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds this command's arguments."""
    parser.add_argument("run", metavar="RUN", help="a run folder")
    parser.add_argument("--split", help="valid, test or train (default: as the evaluators say)")
    parser.add_argument("--batches", type=int, help="only so many global batches (default: the whole split)")
    parser.add_argument("--step", type=int, help="the checkpoint of this step (default: the newest)")
    parser.add_argument("--one-device", action="store_true", help="use one device, not the layout of the training")
    parser.add_argument("--suite", metavar="NAME", help=f"measure this in place of the run's evaluators: "
                        f"{', '.join(SUITES)}")  # fmt: skip
    parser.add_argument("--set", dest="overrides", action="append", default=[], metavar="'probing.layers = [1]'",
                        help="of --suite: gin statements for its evaluators; may be repeated")  # fmt: skip
    parser.add_argument("--harness", action="append", metavar="TASK[,TASK]",
                        help="measure tasks of lm-evaluation-harness (the extra lm-eval)")  # fmt: skip
    parser.add_argument("--include", metavar="DIR", help="of --harness: a folder with task files (YAML)")
    parser.add_argument("--fewshot", type=int, metavar="N", help="of --harness: examples before each question "
                        "(default: as the task says)")  # fmt: skip
    parser.add_argument("--limit", type=int, metavar="N", help="of --harness: only so many documents of each task")


def run(args: argparse.Namespace) -> int:
    """Prints the metrics as a table and writes them to `eval/` in the run folder."""
    _check(args)
    use_compilation_cache()
    return _harness(args) if args.harness else _evaluators(args)


def _check(args: argparse.Namespace) -> None:
    """ConfigError for what does not go together."""
    beside = {"--suite": args.suite, "--split": args.split, "--batches": args.batches}
    if args.harness:
        given = [option for option, value in beside.items() if value is not None]
        if given:
            raise ConfigError(f"--harness brings its own data: leave {given[0]} out.")
    for option in ("include", "fewshot", "limit"):
        if getattr(args, option) is not None and not args.harness:
            raise ConfigError(f"--{option} is of --harness TASK.")
    if args.overrides and args.suite is None:
        raise ConfigError(
            "--set is of --suite: without one, a run is measured by the evaluators that it was trained with."
        )
    for option, least in (("fewshot", 0), ("limit", 1)):
        number = getattr(args, option)
        if number is not None and number < least:
            raise ConfigError(f"--{option} {number}: it must be at least {least}.")


def _evaluators(args: argparse.Namespace) -> int:
    """Measures by the evaluators of a suite, or by the run's own."""
    found = Run(args.run)
    chosen = None if args.suite is None else suite_evaluators(args.suite, args.overrides, found.resolved.plugins)
    program = _program(args, found)
    evaluators = program.experiment.evaluators if chosen is None else chosen
    if not evaluators:
        raise ConfigError(
            f"{args.run} was trained without evaluators: there is nothing to measure. Name others: --suite NAME"
        )
    _check_asked(args, evaluators)
    evaluators = tuple(_with(spec, args.split, args.batches) for spec in evaluators)
    measurements = [build(spec).bind(program) for spec in evaluators]
    state, note = Run(args.run, program).restore(args.step)
    start = time.perf_counter()
    metrics = {name: value for measure in measurements for name, value in measure(state).items()}
    seconds = time.perf_counter() - start
    print_heading(f"{args.run}, step {note.step} ({seconds:.1f} s)")
    _print(metrics)
    saved = {
        "step": note.step,
        "spec": spec_hash(found.resolved.spec),
        **({"suite": args.suite} if args.suite else {}),
        "evaluators": [{"name": spec.name, **spec_to_json(spec)["kwargs"]} for spec in evaluators],
        "metrics": metrics,
        "seconds": seconds,
    }
    parts = (args.suite, args.split, _digest(evaluators) if args.overrides else None)
    _save(Path(args.run) / "eval", f"{note.step}-{'-'.join(part for part in parts if part) or 'default'}", saved)
    return 0


def _check_asked(args: argparse.Namespace, evaluators: Sequence[Spec]) -> None:
    """ConfigError for a split or number of batches that no evaluator has as a parameter: it would change nothing."""
    for option, value in (("split", args.split), ("batches", args.batches)):
        if value is not None and not any(option in spec.kwargs for spec in evaluators):
            names = ", ".join(spec.name for spec in evaluators)
            raise ConfigError(f"--{option} changes nothing here: {names} has no such parameter   (lmlab describe NAME)")


def _digest(evaluators: Sequence[Spec]) -> str:
    """A short name of settings, so that what was measured with others stays where it is."""
    return hashlib.sha256(json.dumps([spec_to_json(spec) for spec in evaluators]).encode()).hexdigest()[:8]


def _harness(args: argparse.Namespace) -> int:
    """Measures by tasks of lm-evaluation-harness."""
    tasks = HarnessTasks(split_names(args.harness), args.include, args.fewshot, args.limit)
    tasks.check()  # what is wrong with a task is better known before a large model is read
    found = Run(args.run)
    program = _program(args, found)
    state, note = Run(args.run, program).restore(args.step)
    start = time.perf_counter()
    results = tasks.measure(program, local_params(program, state))
    seconds = time.perf_counter() - start
    print_heading(f"{args.run}, step {note.step} ({seconds:.1f} s)")
    _print({f"{task}/{name}": value for task, values in results.items() for name, value in values.items()})
    saved = {
        "step": note.step,
        "spec": spec_hash(found.resolved.spec),
        "harness": {"tasks": tasks.names, "fewshot": tasks.fewshot, "limit": tasks.limit, "version": tasks.version},
        "results": results,
        "seconds": seconds,
    }
    asked = "".join(f"-{name}-{n}" for name, n in (("fewshot", tasks.fewshot), ("limit", tasks.limit)) if n is not None)
    _save(Path(args.run) / "eval", f"{note.step}-harness-{tasks.short_name}{asked}", saved)
    return 0


def _program(args: argparse.Namespace, found: Run) -> Program:
    partitioner = Mesh(data=1) if args.one_device or args.harness else None
    return Program(found.resolved, saved_tokenizer=found.files.saved_tokenizer(), partitioner=partitioner)


def _print(metrics: Mapping[str, Any]) -> None:
    print_table(
        [[name, f"{value:,.5g}" if isinstance(value, float) else f"{value:,}"] for name, value in metrics.items()]
    )


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
