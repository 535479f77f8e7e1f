"""Check how the size of activations follows a model's width (the coordinate check of muP).

lmlab coordinates mine.gin --widths 64,128,256 --steps 4
lmlab coordinates mine.gin --set 'gpt.mup_base_width = 64; adamw.learning_rate = 0.01'

The model is trained at every width for a few steps, and the mean |x| behind every block, and of the logits, is shown
with the power of the width with which it grows. Exit code 1 where something grows by more than --tolerance: then the
learning rate of a narrow model does not serve a wide one.
"""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from lmlab.cli import configuration
from lmlab.cli.table import print_table
from lmlab.errors import ConfigError

if TYPE_CHECKING:
    from lmlab.evaluation.coordinates import Coordinates


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds this command's arguments."""
    configuration.add_arguments(parser)
    parser.add_argument("--widths", default="32,64,128,256", metavar="W,W,...",
                        help="of the models (default: 32,64,128,256)")  # fmt: skip
    parser.add_argument("--steps", type=int, default=4, metavar="N", help="of training (default: 4)")
    parser.add_argument("--tolerance", type=float, default=0.2, metavar="S", help="the greatest power of the width "
                        "that passes (default: 0.2)")  # fmt: skip


def run(args: argparse.Namespace) -> int:
    """Prints a row for each place; 1 where one grows."""
    widths = _widths(args.widths)
    if args.steps < 1:
        raise ConfigError(f"--steps {args.steps}: it must be at least 1.")
    resolved = configuration.resolve_arguments(args)
    from lmlab.evaluation.coordinates import coordinates

    found = coordinates(resolved, widths, args.steps)
    rows = [_row(place) for place in found]
    print_table(rows, ("mean |x|", *map(str, widths), "power", "before", "change"), numbers=True)
    grown = [place.place for place in found if place.slopes[1] > args.tolerance]
    print(
        f"\npower: of the width, after {args.steps} steps; before: at the start; change: of mean |x - x at the start|."
    )
    if grown:
        print(f"{', '.join(grown)}: mean |x| grows with the width by a power above {args.tolerance:g}.")
    else:
        print(f"No mean |x| grows with the width by a power above {args.tolerance:g}.")
    return int(bool(grown))


def _widths(text: str) -> list[int]:
    try:
        found = [int(part) for part in text.split(",")]
    except ValueError:
        raise ConfigError(f"--widths {text}: write whole numbers with commas between them.") from None
    if len(set(found)) < 2 or min(found) < 1:
        raise ConfigError(f"--widths {text}: at least two different widths are needed, of at least 1.")
    return sorted(set(found))


def _row(place: Coordinates) -> list[str]:
    begun, after, change = place.slopes
    return [place.place, *(f"{size:.4g}" for size in place.sizes), f"{after:+.2f}", f"{begun:+.2f}", f"{change:+.2f}"]
