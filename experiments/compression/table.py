"""What integers cost and save: nats per token, bytes on disk and tokens/s of a run and of what lmlab makes of it.

    lmlab train experiments/quickstart.gin
    python experiments/compression/table.py runs/quickstart      # pip install 'lmlab[qwix]'

Tokens/s are those of greedy decoding, 64 tokens after a prompt of 32 in one row, in rounds in which the runs take
turns; the best round counts. Bytes are those of the parameters in `lmlab export --format stablehlo`.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any

import numpy as np

from lmlab.cli.main import main as lmlab
from lmlab.generation.decoding import Decoder
from lmlab.generation.samplers import Greedy
from lmlab.generation.saved import SavedRun
from lmlab.interop.inference import Inference

PROMPT, LENGTH = 32, 64


def measured(run: Path, split: str | None, batches: int | None) -> dict[str, Any]:
    """What `lmlab eval` says of a run."""
    words = [
        "eval",
        str(run),
        *(["--split", split] if split else []),
        *(["--batches", str(batches)] if batches else []),
    ]
    if lmlab(words):
        raise SystemExit(1)
    newest = max((run / "eval").glob("*.json"), key=lambda path: path.stat().st_mtime)
    return json.loads(newest.read_text())["metrics"]


def writer(run: Path) -> Any:
    """A function that writes `LENGTH` tokens and gives the seconds that it took."""
    saved = SavedRun(str(run))
    params = dict(saved.params())
    decoder = Decoder(saved.program.model, Greedy(), end_of_text=None)
    prompt = np.random.default_rng(0).integers(1, saved.program.data.vocab, PROMPT).astype(np.int32)

    def write() -> float:
        start = time.perf_counter()
        decoder.complete(params, [prompt], length=LENGTH)
        return time.perf_counter() - start

    return write


def size(run: Path) -> int:
    """Bytes of the parameters that decoding reads."""
    shapes = Inference(SavedRun(str(run)).program).shapes.values()
    return sum(shape.size * shape.dtype.itemsize for shape in shapes)


def main() -> None:
    """Makes what is not there yet, measures everything, and prints the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run", type=Path)
    parser.add_argument("--split", help="of the evaluation (default: the run's own)")
    parser.add_argument("--batches", type=int, help="batches of it (default: all)")
    parser.add_argument("--rounds", type=int, default=5)
    args = parser.parse_args()
    runs = {"float32": args.run}
    for weights in ("int8", "int4", "w8a8", "fp8"):
        runs[weights] = args.run.with_name(f"{args.run.name}-{weights}")
        if not runs[weights].exists():
            lmlab(["quantize", str(args.run), "--run", str(runs[weights]), "--weights", weights])
    metrics = {weights: measured(run, args.split, args.batches) for weights, run in runs.items()}
    writers = {weights: writer(run) for weights, run in runs.items()}
    for write in writers.values():
        write()  # compiles
    rounds = [{weights: write() for weights, write in writers.items()} for _ in range(args.rounds)]
    print("\nweights   nats/token   MB   tokens/s")
    for weights, run in runs.items():
        nats = next(value for name, value in metrics[weights].items() if name.endswith("nats_per_token"))
        best = min(one[weights] for one in rounds)
        print(f"{weights:8}  {nats:.4f}  {size(run) / 1e6:.1f}  {LENGTH / best:.1f}")


if __name__ == "__main__":
    main()
