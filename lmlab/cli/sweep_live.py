"""The table that a person watches while a sweep is run: who is at work, how far all is, and what is best so far."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from lmlab.errors import LmlabError

if TYPE_CHECKING:
    from rich.console import Group

    from lmlab.sweeps.folder import Record, SweepFolder

SECONDS_BETWEEN_LOOKS = 1.0
"""At the steps of running trials."""
MOST_ROWS = 12


class LiveTable:
    """Shown at the lower end of a terminal; lines are printed above it.

    Args:
      folder: of the sweep.
      text: a setting in one line.
    """

    def __init__(self, folder: SweepFolder, text: Callable[[Mapping[str, str]], str]) -> None:
        from rich.console import Console
        from rich.live import Live

        self._folder = folder
        self._text = text
        self._terminal = Console(file=sys.stderr)
        self._live = Live(console=self._terminal, auto_refresh=False, transient=True)
        self._looked = 0.0
        self._finals: dict[str, dict[str, float]] = {}
        self._live.start()

    def line(self, text: str) -> None:
        """Prints a line above the table."""
        self._terminal.print(text, markup=False, highlight=False, soft_wrap=True)

    def show(self, records: Mapping[str, Record | None], summary: str) -> None:
        """Draws the table anew, unless that was done just now."""
        if time.monotonic() - self._looked < SECONDS_BETWEEN_LOOKS:
            return
        self._looked = time.monotonic()
        self._live.update(self._drawn(records, summary), refresh=True)

    def close(self) -> None:
        """Takes the table away."""
        self._live.stop()

    def _drawn(self, records: Mapping[str, Record | None], summary: str) -> Group:
        from rich.console import Group
        from rich.table import Table
        from rich.text import Text

        table = Table(box=None, pad_edge=False)
        for name in ("trial", "seed", "step", "setting"):
            table.add_column(name, no_wrap=True, overflow="ellipsis", justify="right" if name == "step" else "left")
        running = [record for record in records.values() if record is not None and record.status == "running"]
        for record in running[:MOST_ROWS]:
            status = self._folder.trial(record.id).status()
            step = f"{status['step']:,}/{status['steps']:,}" if "step" in status else "-"
            table.add_row(record.id, str(record.seed), step, Text(self._text(record.settings)))
        more = [Text(f"... and {len(running) - MOST_ROWS} more")] if len(running) > MOST_ROWS else []
        return Group(table, *more, Text(summary), *map(Text, self._best(records)))

    def _best(self, records: Mapping[str, Record | None]) -> list[str]:
        """The best finished trial, in a line; nothing before one has finished."""
        from lmlab.sweeps.direction import better
        from lmlab.sweeps.records import final_numbers, read_records

        done = {trial: record for trial, record in records.items() if record is not None and record.status == "ok"}
        for trial in done.keys() - self._finals.keys():
            try:
                self._finals[trial] = final_numbers(read_records(self._folder.trial(trial).metrics))
            except LmlabError:  # of a damaged file, which the report shows as damaged
                self._finals[trial] = {}
        values = {trial: self._finals[trial] for trial in done}
        names = dict.fromkeys(name for found in values.values() for name in found)
        for metric in sorted(names, key=lambda name: name.startswith("train/")):  # what was evaluated first
            try:
                lowest = better(metric) == "lower"
            except LmlabError:
                continue
            having = {trial: found[metric] for trial, found in values.items() if metric in found}
            best = (min if lowest else max)(having, key=lambda trial: having[trial])
            which = f"seed {done[best].seed}, {self._text(done[best].settings)}"
            return [f"best so far: {metric} {having[best]:.5g}, {which}"]
        return []
