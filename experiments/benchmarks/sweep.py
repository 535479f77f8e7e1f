"""What sharing a program is worth: 16 trials as one sweep, beside the same 16 as commands one after the other.

    python experiments/benchmarks/sweep.py runs/bench_sweep            # must not exist
    python experiments/benchmarks/sweep.py runs/bench_sweep 12 64      # rows of a batch and tokens of a row (8 and 32)

A GPT of 4 layers of width 128, 200 steps, 4 learning rates times 4 seeds. The cache of compiled programs is warm for
both: one command and one sweep of one trial are run before, and not counted. Printed are wall times, their ratio for
one worker and for two, and what a trial costs beside its steps and evaluations; the first one of each worker, which
loads the program, is left out of that.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import time
from pathlib import Path

FILE = """
include 'experiments/data/stdlib.gin'
experiment.model = @gpt
experiment.loss = @autoregressive
experiment.optimizer = @adamw
experiment.steps = 200
experiment.global_batch_size = {rows}
experiment.seq_len = {tokens}
experiment.hooks = []
gpt.layers = 4
gpt.width = 128
gpt.heads = 4
checkpoints.every = 0
"""
RATES, SEEDS = (0.0003, 0.001, 0.003, 0.01), (0, 1, 2, 3)


def timed(*words: str) -> float:
    """Seconds of an lmlab command."""
    begun = time.perf_counter()
    subprocess.run([sys.executable, "-m", "lmlab", *words], check=True, capture_output=True)
    return time.perf_counter() - begun


def overheads(sweep: Path) -> list[float]:
    """Seconds of each trial that were not its steps or evaluations, in the order in which they were run."""
    found = []
    for path in sorted(sweep.glob("trials/*/trial.json"), key=lambda path: path.stat().st_mtime):
        (attempt,) = json.loads(path.read_text())["attempts"]
        lines = [json.loads(line) for line in (path.parent / "metrics.jsonl").read_text().splitlines()]
        found.append(attempt["seconds"] - sum(line["timing"]["seconds"] for line in lines))
    return found


def main(folder: str, rows: str = "8", tokens: str = "32") -> None:
    """Trains everything and prints the table."""
    text = FILE.format(rows=int(rows), tokens=int(tokens))
    place = Path(folder)
    place.mkdir(parents=True)
    one, sweep = place / "one.gin", place / "sweep.gin"
    one.write_text(text)
    axes = f"sweep.axes = {{'adamw.learning_rate': {list(RATES)}}}\n"
    sweep.write_text(f"{text}{axes}sweep.seeds = {list(SEEDS)}\n")
    timed("train", str(one), "--run", str(place / "warm"), "--set", "adamw.learning_rate = 0.002")
    timed("sweep", str(sweep), "--folder", str(place / "warm_sweep"), "--set", "sweep.seeds = [9]; sweep.axes = {}; "
          "adamw.learning_rate = 0.002")  # fmt: skip
    alone = [
        timed("train", str(one), "--run", str(place / f"train_{rate}_{seed}"), "--set",
              f"adamw.learning_rate = {rate}; experiment.seed = {seed}")
        for rate in RATES for seed in SEEDS
    ]  # fmt: skip
    print(f"{len(alone)} commands: {sum(alone):.1f} s ({statistics.median(alone):.1f} s each)", flush=True)
    for workers in (1, 2):
        where = place / f"sweep_{workers}"
        seconds = timed("sweep", str(sweep), "--folder", str(where), "--workers", str(workers))
        beside = overheads(where)[workers:]
        middle = f"{statistics.median(beside):.2f} s ({min(beside):.2f} to {max(beside):.2f})"
        print(f"one sweep, workers {workers}: {seconds:.1f} s, ratio {sum(alone) / seconds:.2f}", flush=True)
        print(f"  beside steps and evaluations a trial costs {middle}", flush=True)


if __name__ == "__main__":
    if len(sys.argv) not in (2, 4):
        sys.exit(__doc__)
    main(*sys.argv[1:])
