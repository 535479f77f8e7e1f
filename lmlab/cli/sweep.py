"""Run every trial of a sweep. The same command again goes on with what is left; finished trials are never run twice.

lmlab sweep experiments/ablations/positions.gin --dry-run    # the trials, and how many programs they need
lmlab sweep experiments/ablations/positions.gin --dry-run --measure    # and how long they take
lmlab sweep experiments/ablations/positions.gin
lmlab sweep experiments/ablations/positions.gin --retry      # those too that have failed

The file holds an experiment and the axes of the sweep (lmlab describe sweep):

    include 'experiments/quickstart.gin'
    sweep.axes = {'gpt.layers': [2, 4], 'adamw.learning_rate': [1e-3, 3e-3]}
    sweep.seeds = [0, 1, 2]
"""

from __future__ import annotations

import argparse
import gc
import sys
import time
from collections import Counter
from contextlib import closing
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from lmlab.cli import configuration
from lmlab.cli.sweep_table import Progress, setting_text
from lmlab.cli.table import print_table
from lmlab.errors import ConfigError, LmlabError

if TYPE_CHECKING:
    from collections.abc import Callable

    from lmlab.sweeps.choosing import Choice
    from lmlab.sweeps.folder import SweepFolder
    from lmlab.sweeps.space import Settings
    from lmlab.sweeps.trials import Plan

RUNS = Path("runs")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds this command's arguments."""
    configuration.add_arguments(parser)
    parser.add_argument("--folder", metavar="DIR", help="the sweep's folder (default: runs/ and the first file's name)")
    parser.add_argument("--dry-run", action="store_true", help="show the trials, and run none")
    parser.add_argument(
        "--measure",
        action="store_true",
        help="with --dry-run: time a few steps of each group, and say how long the sweep takes",
    )
    parser.add_argument("--retry", action="store_true", help="try trials again that have failed")
    parser.add_argument("--launcher", metavar="NAME", help="where workers are started (default: sweep.launcher; "
                        "lmlab list launcher)")  # fmt: skip
    parser.add_argument("--workers", type=int, metavar="N", help="processes that train at the same time (default: "
                        "sweep.workers, and where that is unset what a few steps say)")  # fmt: skip


def run(args: argparse.Namespace) -> int:
    """Runs the trials; 0 where all are finished, 1 where some have failed."""
    from lmlab.sweeps.launchers.nursery import prepare

    if args.workers is not None and args.workers < 1:
        raise ConfigError(f"--workers {args.workers}: it must be at least 1.")
    if not args.dry_run and args.launcher in (None, "local"):
        prepare()  # while this process imports what it needs itself
    from lmlab.sweeps.trials import plan

    files = [*args.files, *args.gin_files]
    chosen = [] if args.launcher is None else [f"sweep.launcher = @{args.launcher}()"]
    found = plan(files, [*args.overrides, *chosen], args.plugins)
    if args.dry_run:
        return _show(found, args.measure)
    if args.measure:
        raise ConfigError("--measure is of --dry-run: say that too, and nothing is trained.")
    from lmlab.sweeps.folder import SweepFolder
    from lmlab.sweeps.launchers.local import try_again

    folder = SweepFolder(args.folder or RUNS / found.name)
    if found.search is not None:
        return _search(found, folder, lambda proposed: plan(files, [*args.overrides, *chosen], args.plugins, proposed),
                       args)  # fmt: skip
    folder.write(found)
    if args.retry:
        print(f"{try_again(folder)} trials that had failed are tried again.", file=sys.stderr)
    choice = _choose(found, folder, args.workers)
    folder.write(found, choice.strategy)
    progress = Progress(folder, choice.workers, time.monotonic)
    with closing(progress):
        found.sweep.launcher.run(folder, choice.workers, progress)
    gc.freeze()  # the interpreter would look through all that was imported before it ends, for half a second
    return progress.finish()


def _search(found: Plan, folder: SweepFolder, planned: Callable[[list[Settings]], Plan], args: Any) -> int:
    """Trains what is proposed, lot by lot, until the search is over."""
    from lmlab.sweeps.launchers.local import try_again
    from lmlab.sweeps.study import Study

    assert found.search is not None
    if not (folder.path / "sweep.json").exists():
        folder.write(found)
    study = Study(folder, found.sweep, found.search)
    workers = args.workers or found.sweep.workers or 1
    if args.retry:
        print(f"{try_again(folder)} trials that had failed are tried again.", file=sys.stderr)
    code = None
    while study.propose():
        found = planned(study.settings())
        folder.write(found, "sequential" if found.sweep.strategy == "auto" else found.sweep.strategy)
        progress = Progress(folder, workers, time.monotonic)
        with closing(progress):
            found.sweep.launcher.run(folder, workers, progress)
        code = progress.finish()
        if not study.judge(found.asked_for):
            break  # nobody has trained anything: the launcher has only printed
    if code is None:
        print(f"all {len(study.settings())} settings that were asked for have been judged: {folder.path}")
    return code or 0


def _choose(found: Plan, folder: SweepFolder, told: int | None) -> Choice:
    """How the trials are trained: as was told, and else as a few steps say."""
    from lmlab.registry import name_of
    from lmlab.sweeps.choosing import Choice, choose

    sweep = found.sweep
    workers = sweep.workers if told is None else told
    if workers is not None:
        return Choice(workers, "sequential" if sweep.strategy == "auto" else sweep.strategy)
    if sweep.strategy != "auto" or name_of(sweep.launcher) != "local":
        return Choice(1, "sequential" if sweep.strategy == "auto" else sweep.strategy)
    records = {trial.id: folder.record(trial.id) for trial in found.trials}
    left = [trial for trial in found.trials if not ((record := records[trial.id]) and record.ended)]
    choice = choose(folder, [trial.id for trial in left], sum(trial.resolved.spec.kwargs["steps"] for trial in left))
    if choice.why:
        print(f"{choice.why}: {choice.workers} workers, {choice.strategy}.", file=sys.stderr)
    return choice


def _show(found: Plan, measure: bool) -> int:
    """The trials, what they cost, and what keeps some of them from being trained; 1 where there is such a thing."""
    groups = len({trial.group for trial in found.trials})
    repeated = f", {found.repeated} more settings came to the same trials" if found.repeated else ""
    rows = [[trial.id, str(trial.group), str(trial.seed), setting_text(trial.settings)] for trial in found.trials]
    print_table(rows, ("trial", "group", "seed", "setting"))
    if found.search is not None:
        each = f"each is run with {max(1, len(found.sweep.seeds))} seeds"
        print(f"{found.search.settings} settings of {', '.join(found.axes)} are proposed in the course of it; {each}.")
        return 0
    steps = sum(trial.resolved.spec.kwargs["steps"] for trial in found.trials)
    print(f"\n{len(found.trials)} trials in {groups} groups of one compiled step each, {steps:,} steps{repeated}.")
    problems = _problems(found)
    for problem, trials in problems.items():
        some = ", ".join([*trials[:3], *(["..."] if trials[3:] else [])])
        print(f"\n{len(trials)} of them cannot be trained ({some}): {problem}")
    if measure and not problems:
        print(f"One after the other, their steps take about {_duration(_estimate(found))} on this machine.")
    return 1 if problems else 0


def _estimate(found: Plan) -> float:
    """Seconds of all steps, by a few of each group; nothing is left behind."""
    from lmlab.sweeps.choosing import estimate
    from lmlab.sweeps.folder import SweepFolder

    steps: Counter[int] = Counter()
    for trial in found.trials:
        steps[trial.group] += trial.resolved.spec.kwargs["steps"]
    with TemporaryDirectory() as place:
        folder = SweepFolder(place)
        folder.write(found)
        return estimate(folder, steps)


def _duration(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"


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
