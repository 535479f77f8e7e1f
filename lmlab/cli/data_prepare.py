"""`lmlab data prepare`: a corpus tokenised once, for runs that read it without a copy.

lmlab data prepare experiments/quickstart.gin --out stores/stdlib
lmlab train experiments/quickstart.gin --set "experiment.dataset = @prepared; experiment.tokenizer = None;
prepared.path = 'stores/stdlib'"
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path
from typing import Any

from lmlab.cli import configuration
from lmlab.errors import ConfigError

SPLITS = ("train", "valid", "test")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the arguments of this action."""
    configuration.add_arguments(parser)
    parser.add_argument("--out", required=True, metavar="FOLDER", help="where the store is written")
    parser.add_argument("--workers", type=int, default=_cores(), metavar="N",
                        help="processes; the store does not depend on it (default: one for each core)")  # fmt: skip
    parser.add_argument("--shard-size", type=float, default=256, metavar="MB", help="text per shard (default: 256)")
    parser.add_argument("--longest-document", type=float, default=16, metavar="MB",
                        help="refuse longer documents: memory grows with them (default: 16)")  # fmt: skip
    parser.add_argument("--examples", action="store_true",
                        help="keep texts as texts, for objectives that read more than one stream of ids")  # fmt: skip
    parser.add_argument("--splits", default=",".join(SPLITS), help="(default: train,valid,test)")


def run(args: argparse.Namespace) -> None:
    """Makes the store."""
    positive = {"--workers": args.workers, "--shard-size": args.shard_size, "--longest-document": args.longest_document}
    for option, value in positive.items():
        if value <= 0:
            raise ConfigError(f"{option} {value:g}: it must be above 0.")
    splits = tuple(args.splits.split(","))
    if "train" not in splits or not set(splits) <= set(SPLITS):
        raise ConfigError(f"--splits {args.splits}: some of {', '.join(SPLITS)}, and train among them.")
    parts = ("dataset", "tokenizer", "max_examples")
    resolved = configuration.resolve_arguments(args, parts=parts)
    chosen: dict[str, Any] = dict(resolved.spec.kwargs)
    from lmlab.data.prepared import Request, prepare

    if chosen["tokenizer"] is None:
        raise ConfigError("experiment.tokenizer is not set: what is to turn the text into ids? For example @bytes.")
    request = Request(
        dataset=chosen["dataset"],
        tokenizer=chosen["tokenizer"],
        plugins=resolved.plugins,
        max_examples=chosen["max_examples"],
        splits=splits,
        shard_size=round(args.shard_size * 1e6),
        longest=round(args.longest_document * 1e6),
        workers=args.workers,
        examples=args.examples,
    )
    prepare(request, Path(args.out), lambda line: print(line, flush=True))


def _cores() -> int:
    """The cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
