"""How a sweep is shown while it is run, and afterwards."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from lmlab.cli.sweep_live import LiveTable

if TYPE_CHECKING:
    from lmlab.sweeps.folder import Record, SweepFolder


def setting_text(settings: Mapping[str, str]) -> str:
    """A setting in one line."""
    return ", ".join(f"{key} = {value}" for key, value in settings.items()) or "(as in the file)"


class Progress:
    """Tells what changes in a sweep, a line for each change; on a terminal there is a table too of what goes on.

    Args:
      folder: of the sweep.
      workers: processes at work, for the time that is left.
      clock: seconds.
    """

    def __init__(self, folder: SweepFolder, workers: int, clock: Callable[[], float]) -> None:
        self.workers = workers
        self._folder = folder
        self._clock = clock
        self._seen: dict[str, str] = {}
        self._records: dict[str, Record | None] = {}
        self._begun = clock()
        self._ended_before: int | None = None
        self._live = LiveTable(folder, setting_text) if sys.stderr.isatty() else None

    def __call__(self, records: dict[str, Record | None]) -> None:
        """Tells what is new in the records."""
        self._records = records
        if self._ended_before is None:
            self._ended_before = self._ended
            self._seen = {trial: record.status for trial, record in records.items() if record and record.ended}
            if self._ended_before:
                self._line(f"{self._ended_before} of {len(records)} trials have ended before.")
        for trial, record in records.items():
            if record is not None and self._seen.get(trial) != record.status:
                self._seen[trial] = record.status
                if record.status != "running":
                    self._line(self._told(record))
        if self._live is not None:
            self._live.show(records, self._summary())

    def finish(self) -> int:
        """Says what came of the sweep; 0 where all trials are finished or were let go of, else 1."""
        self.close()
        print(f"{self._summary()}: {self._folder.path}", flush=True)
        return int(any(record is None or record.status not in ("ok", "pruned") for record in self._records.values()))

    def close(self) -> None:
        """Takes the table away; also where the sweep was stopped."""
        if self._live is not None:
            self._live.close()

    @property
    def _ended(self) -> int:
        return sum(record is not None and record.ended for record in self._records.values())

    def _told(self, record: Record) -> str:
        seconds = record.attempts[-1]["seconds"] if record.attempts else None
        took = "" if seconds is None else f", {seconds:.1f} s"
        why = f": {record.message.splitlines()[0]}" if record.message else ""
        place = f"[{self._ended}/{len(self._records)}]"
        return f"{place} {record.id} seed {record.seed}, {setting_text(record.settings)}: {record.status}{took}{why}"

    def _summary(self) -> str:
        counts = Counter(record.status if record else "pending" for record in self._records.values())
        text = ", ".join(f"{number} {status}" for status, number in counts.items())
        ended, left = self._ended - (self._ended_before or 0), len(self._records) - self._ended
        if not (ended and left):
            return text
        seconds = (self._clock() - self._begun) / ended * left
        return f"{text}; about {seconds / 60:.0f} min left" if seconds > 90 else f"{text}; about {seconds:.0f} s left"

    def _line(self, text: str) -> None:
        if self._live is not None:
            self._live.line(text)
        else:
            print(text, file=sys.stderr, flush=True)
