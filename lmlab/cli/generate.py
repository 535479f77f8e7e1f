"""Generate text from a run, token by token, with the averaged parameters where the run keeps an average.

lmlab generate runs/quickstart --prompt 'def main' --temperature 0.8 --count 3
lmlab generate runs/scan --prompt 'jump twice' --temperature 0      # an encoder-decoder: the prompt is the source
lmlab generate runs/scan --prompt 'jump twice' --beams 4 --count 2  # the two best that a beam search finds
lmlab generate runs/scan --prompt 'jump twice' --beams 4 --groups 4 --diversity 1 --count 4  # texts that differ
lmlab generate runs/gpt2 --prompt 'A story' --contrastive 0.6       # probable, without saying the same again
lmlab generate runs/scan --prompt 'jump twice' --target-prefix 'I_JUMP'  # the rest of a target
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping

from jax import Array

from lmlab.cli.beams import add_beams, beams_of
from lmlab.errors import ConfigError
from lmlab.generation.beam import BeamOptions
from lmlab.generation.samplers import Sample
from lmlab.generation.saved import SavedRun
from lmlab.generation.writing import Author
from lmlab.training.compilation_cache import use_compilation_cache

CANDIDATES = 4
"""Tokens that a contrastive search chooses from."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds this command's arguments."""
    parser.add_argument("run", metavar="RUN", help="a run folder")
    parser.add_argument("--prompt", default="", help="what to continue (default: the beginning of a document), or the "
                        "encoder-decoder's source; for a dataset of ids, numbers with spaces between")  # fmt: skip
    parser.add_argument("--length", type=int, default=256, help="the most tokens to add (default: 256)")
    parser.add_argument("--count", type=int, default=1, help="continuations to write (default: 1)")
    parser.add_argument("--seed", type=int, default=0, help="the same seed writes the same text (default: 0)")
    parser.add_argument("--temperature", type=float, default=1.0, help="0 takes the most probable token (default: 1)")
    parser.add_argument("--top-k", type=int, help="draw from the K most probable tokens only")
    parser.add_argument("--top-p", type=float, help="draw from the fewest tokens whose probabilities reach P only")
    parser.add_argument("--min-p", type=float, help="draw only from tokens at least P times as probable as the most "
                        "probable one")  # fmt: skip
    parser.add_argument("--repetition-penalty", type=float, metavar="R", help="divide the logits of tokens that the "
                        "text has already by R (negative ones are multiplied)")  # fmt: skip
    parser.add_argument("--target-prefix", default="", metavar="TEXT", help="what the target of an encoder-decoder "
                        "begins with")  # fmt: skip
    add_beams(parser, "for what is most probable, instead of drawing; the --count best are shown, each with its "
              "log-probability in nats")  # fmt: skip
    parser.add_argument("--contrastive", type=float, metavar="A", help="contrastive search: of the --top-k most "
                        "probable tokens (default: 4) the one with the greatest (1 - A) p - A s, where s is "
                        "how alike its state is to an earlier one's")  # fmt: skip
    parser.add_argument("--step", type=int, help="the checkpoint of this step (default: the newest)")


def run(args: argparse.Namespace) -> int:
    """Writes the continuations to standard output as they come."""
    for name in ("length", "count"):
        if getattr(args, name) < 1:
            raise ConfigError(f"--{name} {getattr(args, name)}: it must be at least 1.")
    if not 0 <= args.seed < 2**32:
        raise ConfigError(f"--seed {args.seed}: it must be between 0 and {2**32 - 1}.")
    drawn = [name for name in ("top_k", "top_p", "min_p", "repetition_penalty") if getattr(args, name) is not None]
    beams = beams_of(args)
    if beams is not None and (drawn or args.temperature != 1):
        name = drawn[0].replace("_", "-") if drawn else "temperature"
        raise ConfigError(f"--beams draws nothing: leave --{name} out.")
    if args.contrastive is not None:
        _check_contrastive(args, drawn)
    if beams is not None and args.count > beams.beams:
        raise ConfigError(f"--beams {args.beams} finds as many texts: set --count to between 1 and that.")
    sampler = Sample(args.temperature, args.top_k, args.top_p, args.min_p, args.repetition_penalty)
    use_compilation_cache()
    saved = SavedRun(args.run)
    author = Author(saved.program, sampler, beginning=args.target_prefix)
    if beams is not None:
        _show_best(author, saved.params(args.step), beams, args)
        return 0
    if args.contrastive is not None:
        (text,) = author.contrast(
            saved.params(args.step), [args.prompt], length=args.length, penalty=args.contrastive,
            candidates=CANDIDATES if args.top_k is None else args.top_k,
        )  # fmt: skip
        print(f"{args.prompt}{author.between}{text}")
        return 0
    _show(author, saved.params(args.step), [args.prompt] * args.count, args.length, args.seed)
    return 0


def _check_contrastive(args: argparse.Namespace, drawn: list[str]) -> None:
    others = [name for name in drawn if name != "top_k"]
    others += [name for name, plain in (("temperature", 1), ("count", 1)) if getattr(args, name) != plain]
    others += ["beams"] if args.beams is not None else []
    if others:
        raise ConfigError(f"--contrastive draws nothing and finds one text: leave --{others[0].replace('_', '-')} out.")


def _show_best(author: Author, params: Mapping[str, Array], beams: BeamOptions, args: argparse.Namespace) -> None:
    """Writes the best texts that a beam search finds, the best first."""
    (found,) = author.search(params, [args.prompt], beams, length=args.length)
    for number, (text, one) in enumerate(found[: args.count], start=1):
        print(f"--- {number}: {one.log_probability:.3f} nats, score {one.score:.4f} ---")
        print(f"{args.prompt}{author.between}{text}", flush=True)


def _show(author: Author, params: Mapping[str, Array], prompts: list[str], length: int, seed: int) -> None:
    """Writes the first continuation as it comes, and the others, made beside it, below."""
    several = len(prompts) > 1
    print("--- sample 1 ---\n" if several else "", prompts[0], author.between, sep="", end="", flush=True)
    rows = [""] * len(prompts)
    for pieces in author.stream(params, prompts, length=length, seed=seed):
        print(pieces[0], end="", flush=True)
        rows = [row + piece for row, piece in zip(rows, pieces, strict=True)]
    print()
    for number, (prompt, row) in enumerate(zip(prompts[1:], rows[1:], strict=True), start=2):
        print(f"--- sample {number} ---\n{prompt}{author.between}{row}", flush=True)
