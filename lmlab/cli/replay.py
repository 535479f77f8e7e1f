"""Run one step of a run again, on one device and operation by operation, and name the first one that is not finite.

  lmlab replay runs/mine 1200

STEP counts from 0, as the message of a run that stopped says it. Exit codes: 0 all was finite; 5 something was not.
"""

from __future__ import annotations

import argparse

from lmlab.errors import NonFiniteError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds this command's arguments."""
    parser.add_argument("run", metavar="RUN", help="the run folder")
    parser.add_argument("step", metavar="STEP", type=int, help="the step, counted from 0")


def run(args: argparse.Namespace) -> int:
    """Replays the step and prints what was found."""
    from lmlab.training.compilation_cache import use_compilation_cache
    from lmlab.training.replay import replay

    use_compilation_cache()
    found = replay(args.run, args.step)
    print(found.text())
    return 0 if found.finite else NonFiniteError.exit_code
