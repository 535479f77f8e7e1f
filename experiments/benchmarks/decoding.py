"""Cached decoding of GPT-2 124M with random weights, beside Hugging Face's `generate` on the same CPU.

    pip install torch==2.13.0 && pip install 'transformers>=5,<6'
    python experiments/benchmarks/decoding.py --batch 1 --batch 32

Transformers saves a model, `lmlab import` reads it, and the two take turns: the same prompts, greedily, in float32,
after a first turn that compiles. What they write has to be the same. The ratio is that of the median times of a turn.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from transformers import GPT2Config, GPT2LMHeadModel

from lmlab.cli.main import main as lmlab
from lmlab.generation.decoding import Decoder
from lmlab.generation.samplers import Greedy
from lmlab.generation.saved import SavedRun
from lmlab.generation.writing import positions


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batch", type=int, action="append", help="rows (may be given again; default: 1 and 32)")
    parser.add_argument("--prompt", type=int, default=32, help="tokens of a prompt")
    parser.add_argument("--length", type=int, default=64, help="tokens to write")
    parser.add_argument("--turns", type=int, default=5)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        theirs = _model(Path(folder) / "gpt2")
        if lmlab(["import", f"{folder}/gpt2", "--run", f"{folder}/run"]):
            raise SystemExit(1)
        saved = SavedRun(f"{folder}/run")
        params = saved.params()
    decoder = Decoder(saved.program.model, Greedy(), end_of_text=None, limit=positions(saved.program.model))
    for rows in args.batch or [1, 32]:
        prompts = np.random.default_rng(rows).integers(0, saved.program.data.vocab, (rows, args.prompt))

        def ours(prompts: np.ndarray = prompts) -> np.ndarray:
            return np.stack(decoder.complete(params, list(prompts.astype(np.int32)), length=args.length))

        def hugging_face(prompts: np.ndarray = prompts) -> np.ndarray:
            ids = torch.from_numpy(prompts)
            with torch.inference_mode():
                written = theirs.generate(
                    ids, attention_mask=torch.ones_like(ids), do_sample=False, min_new_tokens=args.length,
                    max_new_tokens=args.length,
                )  # fmt: skip
            return written[:, args.prompt :].numpy()

        same = (ours() == hugging_face()).mean()
        times = _medians({"lmlab": ours, "transformers": hugging_face}, args.turns)
        count = rows * args.length
        print(
            f"batch {rows}: lmlab {count / times['lmlab']:.1f} tokens/s, "
            f"transformers {count / times['transformers']:.1f}, "
            f"ratio {times['transformers'] / times['lmlab']:.2f}; {same:.1%} of the tokens are the same",
            flush=True,
        )


def _model(folder: Path) -> GPT2LMHeadModel:
    """GPT-2 124M as it is initialised, saved."""
    torch.manual_seed(0)
    model = GPT2LMHeadModel(GPT2Config()).eval()
    model.save_pretrained(folder)
    return model


def _medians(sides: dict[str, Callable[[], np.ndarray]], turns: int) -> dict[str, float]:
    """Seconds of a turn of each side, which take turns."""
    found: dict[str, list[float]] = {name: [] for name in sides}
    for _ in range(turns):
        for name, turn in sides.items():
            begun = time.perf_counter()
            turn()
            found[name].append(time.perf_counter() - begun)
    return {name: statistics.median(seconds) for name, seconds in found.items()}


if __name__ == "__main__":
    main()
