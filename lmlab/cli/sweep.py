"""Run every trial of a sweep. The same command again goes on with what is left; finished trials are never run twice.

lmlab sweep experiments/ablations/positions.gin --dry-run    # the trials, and how many programs they need
lmlab sweep experiments/ablations/positions.gin
lmlab sweep experiments/ablations/positions.gin --retry      # those too that have failed

The file holds an experiment and the axes of the sweep (lmlab describe sweep):

    include 'experiments/quickstart.gin'
    sweep.axes = {'gpt.layers': [2, 4], 'adamw.learning_rate': [1e-3, 3e-3]}
    sweep.seeds = [0, 1, 2]
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

from lmlab.cli import configuration
from lmlab.cli.sweep_table import Progress, setting_text
from lmlab.cli.table import print_table
from lmlab.errors import ConfigError, LmlabError

if TYPE_CHECKING:
    from lmlab.sweeps.trials import Plan

RUNS = Path("runs")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds this command's arguments."""
    configuration.add_arguments(parser)
    parser.add_argument("--folder", metavar="DIR", help="the sweep's folder (default: runs/ and the first file's name)")
    parser.add_argument("--dry-run", action="store_true", help="show the trials, and run none")
    parser.add_argument("--retry", action="store_true", help="try trials again that have failed")
    parser.add_argument("--workers", type=int, metavar="N", help="processes that train at the same time (default: "
                        "sweep.workers)")  # fmt: skip


def run(args: argparse.Namespace) -> int:
    """Runs the trials; 0 where all are finished, 1 where some have failed."""
    from lmlab.sweeps.trials import plan

    if args.workers is not None and args.workers < 1:
        raise ConfigError(f"--workers {args.workers}: it must be at least 1.")
    files = [*args.files, *args.gin_files]
    found = plan(files, args.overrides, args.plugins)
    if args.dry_run:
        return _show(found)
    from lmlab.sweeps.folder import SweepFolder
    from lmlab.sweeps.local import run_locally, try_again

    folder = SweepFolder(args.folder or RUNS / found.name)
    folder.write(found)
    if args.retry:
        print(f"{try_again(folder)} trials that had failed are tried again.", file=sys.stderr)
    progress = Progress(folder, found.sweep.workers if args.workers is None else args.workers, time.monotonic)
    run_locally(folder, progress.workers, progress)
    return progress.finish()


def _show(found: Plan) -> int:
    """The trials, and what keeps some of them from being trained; 1 where there is such a thing."""
    groups = len({trial.group for trial in found.trials})
    repeated = f", {found.repeated} more settings came to the same trials" if found.repeated else ""
    rows = [[trial.id, str(trial.group), str(trial.seed), setting_text(trial.settings)] for trial in found.trials]
    print_table(rows, ("trial", "group", "seed", "setting"))
    steps = sum(trial.resolved.spec.kwargs["steps"] for trial in found.trials)
    print(f"\n{len(found.trials)} trials in {groups} groups of one compiled step each, {steps:,} steps{repeated}.")
    problems = _problems(found)
    for problem, trials in problems.items():
        some = ", ".join([*trials[:3], *(["..."] if trials[3:] else [])])
        print(f"\n{len(trials)} of them cannot be trained ({some}): {problem}")
    return 1 if problems else 0


def _problems(found: Plan) -> dict[str, list[str]]:
    """What does not fit, as far as it can be said without data, and in which trials."""
    from lmlab.training.fit import check_experiment

    problems: dict[str, list[str]] = {}
    for trial in found.trials:
        try:
            check_experiment(trial.resolved.build())
        except LmlabError as error:
            problems.setdefault(str(error).splitlines()[0], []).append(trial.id)
    return problems
