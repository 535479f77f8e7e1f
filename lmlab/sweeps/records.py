"""The numbers in a run's records: what it ended with, and its curves.

A number of an evaluation has its own name; one of the training records is called `train/NAME` (`train/loss`).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from lmlab.errors import RunFolderError
from lmlab.training.metrics_file import read_metrics

Record = Mapping[str, Any]

Curve = tuple[list[int], list[float]]
"""Steps, and the values there."""


def read_records(path: Path) -> tuple[Record, ...]:
    """The training records and evaluations in a metrics.jsonl; none where there is no such file.

    Raises:
      RunFolderError: the file is damaged.
    """
    found = []
    for number, record in enumerate(read_metrics(path), 1):
        if not (isinstance(record, dict) and isinstance(record.get("step"), int) and "phase" in record):
            raise RunFolderError(f"{path}:{number}: this line is no record of a run.")
        if record["phase"] in ("train", "eval"):
            found.append(record)
    return tuple(found)


def final_numbers(records: Iterable[Record]) -> dict[str, float]:
    """The numbers of the last training record and of the last evaluation."""
    last: dict[str, Record] = {record["phase"]: record for record in records}
    train = {f"train/{name}": value for name, value in _numbers(last.get("train", {}))}
    return {**train, **dict(_numbers(last.get("eval", {})))}


def curve(records: Iterable[Record], metric: str) -> Curve:
    """A metric over the steps at which it was recorded."""
    steps, values = [], []
    in_training = metric.removeprefix("train/") if metric.startswith("train/") else None
    for record in records:
        value: Any = record.get(in_training) if in_training and record["phase"] == "train" else record.get(metric)
        if _is_number(value):
            steps.append(int(record["step"]))
            values.append(float(value))
    return steps, values


def tokens_and_seconds(records: Iterable[Record]) -> tuple[float, float]:
    """Tokens trained on, and how long that took without compiling, evaluating and saving."""
    times = [record.get("timing", {}) for record in records if record["phase"] == "train"]
    seconds = [float(time.get("seconds", 0)) for time in times]
    speeds = (float(time.get("tokens_per_second", 0)) for time in times)
    return sum(s * speed for s, speed in zip(seconds, speeds, strict=True)), sum(seconds)


def _numbers(record: Record) -> Iterator[tuple[str, float]]:
    for name, value in record.items():
        if name != "step" and _is_number(value):
            yield name, float(value)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
