"""Show how far a sweep is: each trial with its status, step and last measured loss.

lmlab status runs/positions
"""

from __future__ import annotations

import argparse
from collections import Counter
from typing import Any

from lmlab.cli.sweep_table import setting_text
from lmlab.cli.table import print_table


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds this command's arguments."""
    parser.add_argument("folder", metavar="SWEEP", help="the folder of a sweep")


def run(args: argparse.Namespace) -> int:
    """Prints a row for each trial."""
    from lmlab.sweeps.folder import SweepFolder

    folder = SweepFolder(args.folder)
    rows = [_row(folder, trial) for trial in folder.read()["trials"]]
    print_table(rows, ("trial", "status", "step", "seconds", "seed", "setting"))
    counts = Counter(row[1] for row in rows)
    print(f"\n{len(rows)} trials: {', '.join(f'{number} {status}' for status, number in counts.items())}")
    return 0


def _row(folder: Any, trial: dict[str, Any]) -> list[str]:
    record, status = folder.record(trial["id"]), folder.trial(trial["id"]).status()
    state = "pending" if record is None else record.status
    if record is not None and state == "running":
        with folder.claimed(trial["id"]) as nobody:
            state = "left" if nobody else state  # its process is gone
    seconds = [one["seconds"] for one in record.attempts if one["seconds"] is not None] if record else []
    step = f"{status['step']}/{status['steps']}" if status else "-"
    spent = f"{sum(seconds):.1f}" if seconds else "-"
    return [trial["id"], state, step, spent, str(trial["seed"]), setting_text(trial["settings"])]
