"""Writers: where a run's numbers go besides metrics.jsonl.

metrics.jsonl is written always, and is the truth. When a run is resumed, a writer's file is made anew from it, so
that no step stands there twice and none is missing.
"""

from __future__ import annotations

import csv
import importlib
import json
import uuid
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import IO, Any, Literal

from lmlab.config import spec_to_json
from lmlab.contracts import OpenWriter, Spec, Value
from lmlab.errors import ConfigError
from lmlab.registry import writers
from lmlab.training.files import writing
from lmlab.training.metrics_file import NAME, read_metrics

Record = Mapping[str, Value]


@writers.register("jsonl")
@dataclass(frozen=True)
class JsonLines:
    """One JSON object per record, as in metrics.jsonl, to another place.

    Args:
      path: a file (relative paths: in the run folder); `-` is standard output, for a program that listens.
    """

    path: str = "-"

    def bind(self, folder: Path, spec: Spec) -> OpenWriter:
        """Opens the file; ConfigError if it is the run's own metrics.jsonl."""
        if self.path == "-":
            return _Printed()
        path = folder / self.path
        if path.resolve() == (folder / NAME).resolve():
            raise ConfigError(f"jsonl.path = '{self.path}' is the run's own file, always written. Name another.")
        with writing(path):
            return _replayed(_Lines(path.open("w", encoding="utf-8")), folder)


@writers.register("csv")
@dataclass(frozen=True)
class Csv:
    """`metrics.csv` in the run folder, one number per row: step, phase, name, value."""

    def bind(self, folder: Path, spec: Spec) -> OpenWriter:
        """Opens the file."""
        path = folder / "metrics.csv"
        with writing(path):
            return _replayed(_Rows(path.open("w", encoding="utf-8", newline="")), folder)


@writers.register("tensorboard")
@dataclass(frozen=True)
class TensorBoard:
    """TensorBoard event files in `tensorboard/` in the run folder (`pip install 'lmlab[tensorboard]'`)."""

    def bind(self, folder: Path, spec: Spec) -> OpenWriter:
        """Opens a new event file, which replaces those of earlier sessions."""
        tensorboard = extra("tensorboardX", "tensorboard")
        logs = folder / "tensorboard"
        with writing(logs):
            for old in logs.glob("events.out.tfevents.*"):
                old.unlink()
            return _replayed(_Events(tensorboard.SummaryWriter(str(logs))), folder)


@writers.register("wandb")
@dataclass(frozen=True)
class WeightsAndBiases:
    """Weights & Biases (`pip install 'lmlab[wandb]'`); a resumed run continues the same page.

    Args:
      project: the project's name there.
      mode: `offline` writes to `wandb/` in the run folder, for a later `wandb sync`; `online` sends.
    """

    project: str = "lmlab"
    mode: Literal["offline", "online"] = "offline"

    def bind(self, folder: Path, spec: Spec) -> OpenWriter:
        """Starts the page of this run folder."""
        wandb = extra("wandb", "wandb")
        page = folder / "wandb_page"  # its id there, kept for the sessions to come
        with writing(folder):
            if not page.exists():
                page.write_text(uuid.uuid4().hex[:12])
            run = wandb.init(
                project=self.project, mode=self.mode, id=page.read_text(), name=folder.name, dir=str(folder),
                resume="allow", config=spec_to_json(spec), settings=wandb.Settings(silent=True),
            )  # fmt: skip
        return _Page(run)


class _Printed:
    def write(self, record: Record) -> None:
        """One line on standard output."""
        print(json.dumps(record), flush=True)

    def close(self) -> None:
        """Standard output stays open."""


@dataclass(frozen=True)
class _Lines:
    file: IO[str]

    def write(self, record: Record) -> None:
        """One line."""
        with writing(Path(self.file.name)):
            self.file.write(json.dumps(record) + "\n")
            self.file.flush()

    def close(self) -> None:
        """Closes the file."""
        self.file.close()


class _Rows:
    def __init__(self, file: IO[str]) -> None:
        self._file = file
        self._rows = csv.writer(file)
        self._rows.writerow(("step", "phase", "name", "value"))

    def write(self, record: Record) -> None:
        """One row per number."""
        with writing(Path(self._file.name)):
            self._rows.writerows((record["step"], record["phase"], name, value) for name, value in numbers(record))
            self._file.flush()

    def close(self) -> None:
        """Closes the file."""
        self._file.close()


class _Events:
    def __init__(self, summary: Any) -> None:
        self._summary = summary

    def write(self, record: Record) -> None:
        """One scalar per number, as `phase/name`."""
        time = record.get("timing", {}).get("time")
        for name, value in numbers(record):
            self._summary.add_scalar(f"{record['phase']}/{name}", value, record["step"], walltime=time)
        self._summary.flush()

    def close(self) -> None:
        """Closes the event file."""
        self._summary.close()


class _Page:
    def __init__(self, run: Any) -> None:
        self._run = run

    def write(self, record: Record) -> None:
        """One row of the page's history; what it has of this step already, it keeps."""
        self._run.log({f"{record['phase']}/{name}": value for name, value in numbers(record)}, step=record["step"])

    def close(self) -> None:
        """Ends the session."""
        self._run.finish()


def numbers(record: Record) -> Iterable[tuple[str, float]]:
    """The metrics of a record and, as `timing/...`, its times."""
    timing = record.get("timing", {})
    named = {**record, **{f"timing/{name}": value for name, value in timing.items()}}
    for name, value in named.items():
        if name not in ("step", "phase", "timing", "timing/time") and isinstance(value, (int, float)):
            yield name, value


def extra(module: str, name: str) -> ModuleType:
    """A module of an optional dependency.

    Raises:
      ConfigError: it is not installed; says how to install it.
    """
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name != module:
            raise
        raise ConfigError(f"the writer '{name}' needs {module}: pip install 'lmlab[{name}]'") from None


def _replayed(writer: OpenWriter, folder: Path) -> OpenWriter:
    """`writer`, after it has been given everything that metrics.jsonl holds."""
    for record in read_metrics(folder / NAME):
        writer.write(record)
    return writer
