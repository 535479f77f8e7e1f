"""Make a run of a run whose matrices are integers: smaller, and read by eval, generate, score and export as it is.

lmlab quantize runs/gpt2 --run runs/gpt2-int8                   # 8 bits, a scale for each output
lmlab quantize runs/gpt2 --run runs/gpt2-int4 --weights int4    # 4 bits, a scale for 64 numbers
lmlab quantize runs/gpt2 --run runs/gpt2-w8a8 --weights w8a8    # 8 bits, and products of integers
lmlab quantize runs/gpt2 --run runs/gpt2-fp8 --weights fp8      # e4m3, and products of such numbers
"""

from __future__ import annotations

import argparse
from pathlib import Path

from lmlab.training.compilation_cache import use_compilation_cache
from lmlab.training.quantizing import quantize_run


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds this command's arguments."""
    parser.add_argument("source", metavar="RUN", help="a run folder")
    parser.add_argument("--run", required=True, metavar="DIR", help="the run folder to make")
    parser.add_argument("--weights", choices=("int8", "int4", "w8a8", "fp8"), default="int8", help="what matrices are "
                        "kept as (default: int8); with w8a8 and fp8 products are of such numbers, too")  # fmt: skip
    parser.add_argument("--step", type=int, help="the checkpoint of this step (default: the newest)")


def run(args: argparse.Namespace) -> int:
    """Says what was made of what."""
    use_compilation_cache()
    program = quantize_run(Path(args.source), Path(args.run), args.weights, args.step)
    model = program.model
    left = sum(shape.size * shape.dtype.itemsize for shape in model.shapes.values())
    print(f"{args.run}: {model.size:,} parameters, of which the matrices are {args.weights}; {left / 2**20:,.1f} MiB, "
          f"in float32 {4 * model.size / 2**20:,.1f} MiB")  # fmt: skip
    return 0
