"""Make a run folder of a run with an adapter: the model alone, whose parameters compute what both did.

lmlab merge runs/lora --run runs/merged

The run stands before its first step, as one of `lmlab import` does: eval, generate, export and the like read it, and
`experiment.init_from` starts another run from it.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from lmlab.generation.saved import SavedRun
from lmlab.training.compilation_cache import use_compilation_cache
from lmlab.training.merging import merge


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds this command's arguments."""
    parser.add_argument("source", metavar="RUN", help="a run folder, whose run has an adapter")
    parser.add_argument("--run", required=True, metavar="DIR", help="the run folder to make")
    parser.add_argument("--step", type=int, help="the checkpoint of this step (default: the newest)")


def run(args: argparse.Namespace) -> int:
    """Says what was made of what."""
    use_compilation_cache()
    saved = SavedRun(args.source)
    program = merge(saved.program, lambda: saved.params(args.step), Path(args.run))
    name, size = program.experiment.model.name, program.model.size
    print(f"{args.run}: a '{name}' of {size:,} parameters, without {saved.program.model.size - size:,} of the adapter")
    return 0
