"""MiniLM, fine-tuned, against the same network from scratch: trains both on each task and prints what they reach.

    python experiments/finetuning/table.py runs/finetuning            # all rows (minilm.gin says what to fetch first)
    python experiments/finetuning/table.py runs/finetuning atis_intent rotten_tomatoes
    python experiments/finetuning/table.py runs/finetuning --read     # only what has been trained already

Both have the same tokenizer, steps and schedule, and three seeds, which decide the fresh parameters, the order of the
examples and dropout. A run that is finished is read, not trained again. Everything is measured on the whole test split;
± is the half width of a 95 % interval of the mean by Student's t, over the seeds alone. Wall time is that of training,
of compilation and evaluation not. The exit code is 1 where a fine-tuned row does not beat its other one by more than
both intervals.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from lmlab.config import build, resolve
from lmlab.training.compilation_cache import use_compilation_cache
from lmlab.training.loop import train
from lmlab.training.run import Run

HERE = Path(__file__).parent
SEEDS = (0, 1, 2)
STUDENT = {2: 12.706, 3: 4.303}
"""97.5 % quantiles of Student's t for so many values."""
TASKS = {
    "atis_intent": ("classification_report", "test/accuracy"),
    "rotten_tomatoes": ("classification_report", "test/accuracy"),
    "reuters_r8": ("classification_report", "test/accuracy"),
    "atis_slots": ("tagging_report", "test/f1/seqeval"),
}
"""What measures each task, and the metric of the table."""
WAYS = {"minilm": ("minilm.gin",), "scratch": ()}
"""The files beside a task's own."""


@dataclass(frozen=True)
class Row:
    """One task and way of beginning, over its seeds: what was reached, and the seconds that it took."""

    values: tuple[float, ...]
    seconds: tuple[float, ...]

    @property
    def mean(self) -> float:
        """Of the values."""
        return float(np.mean(self.values))

    @property
    def interval(self) -> float:
        """Half the width of the 95 % interval of the mean; not a number of a single value."""
        count = len(self.values)
        return STUDENT[count] * float(np.std(self.values, ddof=1)) / count**0.5 if count in STUDENT else float("nan")


def main(folder: str, *asked: str) -> int:
    """Trains or reads the runs, and prints one line for each row; 1 where fine-tuning does not win."""
    use_compilation_cache()
    names, read_only = [name for name in asked if name != "--read"], "--read" in asked
    print(f"{'task':18}{'metric':18}{'start':10}{'seeds':>6}{'mean':>9}{'±':>8}{'train s':>9}   each")
    lost = 0
    for task in names or TASKS:
        rows = {way: _row(Path(folder), task, way, read_only) for way in WAYS}
        for way, row in rows.items():
            if row is not None:
                print(_line(task, way, row), flush=True)
        tuned, scratch = rows["minilm"], rows["scratch"]
        if tuned is None or scratch is None or not tuned.mean - tuned.interval > scratch.mean + scratch.interval:
            lost += 1
    return 1 if lost else 0


def _row(folder: Path, task: str, way: str, read_only: bool) -> Row | None:
    """The runs of all seeds; of those that are finished, where nothing is to be trained."""
    runs = []
    for seed in SEEDS:
        place = folder / f"{task}_{way}_{seed}"
        if not read_only:
            files = [str(HERE / name) for name in (f"{task}.gin", *WAYS[way])]
            runs.append(train(resolve(files, [f"experiment.seed = {seed}"]), place))
        elif place.exists() and Run(place).status == "finished":
            runs.append(Run(place))
    evaluator, metric = TASKS[task]
    if not runs:
        return None
    return Row(tuple(_measured(run, evaluator, metric) for run in runs), tuple(_seconds(run) for run in runs))


def _measured(run: Run, evaluator: str, metric: str) -> float:
    """The metric on the test split: as the run recorded it at its end, else measured now."""
    for record in reversed(run.metrics()):
        if record["phase"] == "eval" and record["step"] == run.step and metric in record:
            return record[metric]
    measure = build(resolve([], [f"{evaluator}.split = 'test'"], root=evaluator).spec).bind(run.program)
    return measure(run.state)[metric]


def _seconds(run: Run) -> float:
    return sum(record["timing"]["seconds"] for record in run.metrics() if record["phase"] == "train")


def _line(task: str, way: str, row: Row) -> str:
    each = " ".join(f"{100 * value:.2f}" for value in row.values)
    numbers = f"{len(row.values):6}{100 * row.mean:9.2f}{100 * row.interval:8.2f}{np.mean(row.seconds):9.0f}"
    return f"{task:18}{TASKS[task][1]:18}{way:10}{numbers}   {each}"


def _check(names: Sequence[str]) -> None:
    unknown = [name for name in names if name not in TASKS and name != "--read"]
    if unknown:
        sys.exit(f"no task named '{unknown[0]}'. There are: {', '.join(TASKS)}")


if __name__ == "__main__":
    if len(sys.argv) < 2:
        sys.exit(__doc__)
    _check(sys.argv[2:])
    sys.exit(main(*sys.argv[1:]))
