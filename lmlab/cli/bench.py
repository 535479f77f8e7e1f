"""Measure the training step side by side with hand-written ones, in one run, taking turns.

lmlab bench experiments/benchmarks/gpt_6x384.gin

The programs to compare with lie beside the gin file: reference_<model>.py (JAX) and torch_<model>.py (PyTorch, where it
is installed), for the model that the file chooses; --reference names others.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from lmlab.cli import configuration
from lmlab.cli.table import print_heading, print_table
from lmlab.errors import ConfigError
from lmlab.parallel.memory import keep_memory


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds this command's arguments."""
    configuration.add_arguments(parser)
    parser.add_argument("--steps", type=int, default=4, help="steps per turn (default: 4)")
    parser.add_argument("--rounds", type=int, default=7, help="turns of each program (default: 7)")
    parser.add_argument("--reference", action="append", default=[], metavar="PATH.py", help="a program to compare with")
    parser.add_argument("--peak", type=float, metavar="TFLOPS", help="peak TFLOP/s of all devices, for the MFU")
    parser.add_argument("--out", metavar="PATH.json", help="also write what was measured here")


def run(args: argparse.Namespace) -> int:
    """Prints speeds, ratios, Python time per step, the loader's speed and the MFU."""
    keep_memory()
    resolved = configuration.resolve_arguments(args)
    from lmlab.training.compilation_cache import use_compilation_cache
    from lmlab.training.program import Program

    use_compilation_cache()
    program = Program(resolved)
    together = program.experiment.steps_per_dispatch
    if args.steps < 1 or args.rounds < 1 or args.steps % together:
        raise ConfigError(f"--steps and --rounds must be at least 1, and --steps a multiple of {together}.")
    found = _measure(program, _references(args, program), args.steps, args.rounds, args.peak)
    _show(found)
    if args.out:
        Path(args.out).write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")
    return 0


def _references(args: argparse.Namespace, program: Any) -> list[Path]:
    name = program.experiment.model.name
    files = [*args.files, *args.gin_files]
    beside = [Path(files[0]).parent / f"{kind}_{name}.py" for kind in ("reference", "torch")] if files else []
    chosen = [Path(path) for path in args.reference] or [path for path in beside if path.exists()]
    for path in chosen:
        if not path.is_file():
            raise ConfigError(f"--reference {path}: no such file.")
    return chosen


def _measure(program: Any, references: list[Path], steps: int, rounds: int, peak: float | None) -> dict[str, Any]:
    """Everything that is shown, as plain data."""
    import jax

    from lmlab.evaluation import throughput

    contestants = [throughput.Contestant("lmlab", throughput.training(program))]
    skipped = []
    for path in references:
        try:
            contestants.append(throughput.Contestant(path.stem, throughput.reference(path, program)))
        except ModuleNotFoundError as error:
            skipped.append(f"{path.stem} is left out: {error.name} is not installed")
    throughput.take_turns(contestants, steps, rounds)
    speeds = throughput.named_speeds(contestants, steps * program.data.train.tokens_per_step)
    at_most = peak * 1e12 if peak else throughput.peak_flops()
    flops = throughput.flops_per_token(program) * speeds["lmlab"][0]
    in_all, in_calls = throughput.python_seconds_per_step(program.spec)
    return {
        "device": f"{jax.device_count()} x {jax.devices()[0].device_kind}",
        "dtype": str(program.dtype),
        "parameters": program.model.size,
        "steps": steps,
        "rounds": rounds,
        "tokens_per_second": speeds,
        "lmlab_over": {c.name: throughput.spread(throughput.ratios(contestants[0], c)) for c in contestants[1:]},
        "skipped": skipped,
        "flops_per_second": flops,
        "mfu": flops / at_most if at_most else None,
        "python_milliseconds_per_step": 1e3 * in_all,
        "call_milliseconds_per_step": 1e3 * in_calls,
        "loader_tokens_per_second": throughput.loader_tokens_per_second(program),
    }


def _show(found: dict[str, Any]) -> None:
    print_heading(f"{found['device']}, {found['dtype']}, {found['parameters']:,} parameters, "
                  f"{found['rounds']} rounds of {found['steps']} steps")  # fmt: skip
    rows = []
    for name, (median, least, most) in found["tokens_per_second"].items():
        over = found["lmlab_over"].get(name)
        ratio = f"{over[0]:.3f} ({over[1]:.3f} .. {over[2]:.3f})" if over else ""
        rows.append([name, f"{median:,.0f}", f"{least:,.0f} .. {most:,.0f}", ratio])
    print_table(rows, ["program", "tokens/s (median)", "min .. max", "lmlab / it (median, min .. max)"])
    for line in found["skipped"]:
        print(line)
    mfu = f"{found['mfu']:.1%}" if found["mfu"] else "unknown (give --peak TFLOPS)"
    print_table([
        ["FLOP/s (6 N + 6 L T D per token)", f"{found['flops_per_second']:.4g}"],
        ["MFU", mfu],
        ["main thread per step, 12 layers", f"{found['python_milliseconds_per_step']:.2f} ms"],
        ["  in the call of XLA's program", f"{found['call_milliseconds_per_step']:.2f} ms"],
        ["loader, one process", f"{found['loader_tokens_per_second']:,.0f} tokens/s"],
    ])  # fmt: skip
