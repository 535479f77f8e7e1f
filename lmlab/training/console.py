"""The writer for a person who watches: a progress bar on a terminal, plain lines elsewhere."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console as Terminal
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from lmlab.contracts import OpenWriter, Spec, Value
from lmlab.registry import writers

Record = Mapping[str, Value]


@writers.register("console")
@dataclass(frozen=True)
class Console:
    """Loss, speed and the time that is left; evaluations as lines of their own."""

    def bind(self, folder: Path, spec: Spec) -> OpenWriter:
        """A progress bar where standard output is a terminal, else plain lines."""
        steps = spec.kwargs["steps"]
        return Bar(steps, folder.name) if sys.stdout.isatty() else Lines(steps)


class Bar:
    """A progress bar that stays at the bottom; what is printed meanwhile appears above it."""

    def __init__(self, steps: int, name: str, terminal: Terminal | None = None) -> None:
        columns = (
            TextColumn("{task.description}"),
            BarColumn(bar_width=None),
            MofNCompleteColumn(),
            TextColumn("{task.fields[now]}"),
            TextColumn("ETA"),
            TimeRemainingColumn(),
        )
        self._progress = Progress(*columns, console=terminal, expand=True)
        self._task = self._progress.add_task(name, total=steps, now="")
        self._progress.start()

    def write(self, record: Record) -> None:
        """Moves the bar for a training record; prints any other."""
        if record["phase"] == "train":
            self._progress.update(self._task, completed=record["step"], now=training_text(record))
        else:
            self._progress.console.print(other_text(record), highlight=False, markup=False)

    def close(self) -> None:
        """Leaves the bar as it stands."""
        self._progress.stop()


class Lines:
    """One line per record, for logs."""

    def __init__(self, steps: int) -> None:
        self._steps = steps

    def write(self, record: Record) -> None:
        """Prints the record."""
        if record["phase"] != "train":
            print(other_text(record), flush=True)
            return
        speed = record.get("timing", {}).get("steps_per_second")
        left = f"  ETA {clock((self._steps - record['step']) / speed)}" if speed else ""
        print(f"step {record['step']}/{self._steps}  {training_text(record)}{left}", flush=True)

    def close(self) -> None:
        """Nothing to close."""


def training_text(record: Record) -> str:
    """Loss, learning rate, skipped updates and speed of a training record."""
    losses = {name: loss for name, loss in record.items() if name.split("/")[-1] == "loss"} or {"loss": None}
    parts = [f"{name} {loss:.4f}" if isinstance(loss, float) else f"{name} -" for name, loss in losses.items()]
    if record.get("skipped"):
        parts.append(f"skipped {record['skipped']:.0%}")
    if speed := record.get("timing", {}).get("tokens_per_second"):
        parts.append(f"{speed:,.0f} tokens/s")
    return "  ".join(parts)


def other_text(record: Record) -> str:
    """Step, phase and every number of a record."""
    metrics = {name: value for name, value in record.items() if name not in ("step", "phase", "timing")}
    shown = "  ".join(
        f"{name} {value:.4g}" if isinstance(value, float) else f"{name} {value}" for name, value in metrics.items()
    )
    return f"step {record['step']}  {record['phase']}  {shown}"


def clock(seconds: float) -> str:
    """Seconds as h:mm:ss."""
    whole = int(seconds)
    return f"{whole // 3600}:{whole // 60 % 60:02d}:{whole % 60:02d}"
