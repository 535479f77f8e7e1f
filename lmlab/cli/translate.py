"""Write the targets of sources with a run of an encoder-decoder: a line for each text, in their order.

lmlab translate runs/scan 'jump twice' 'walk left'
lmlab translate runs/scan --file sources.txt --beams 4 > targets.txt
lmlab summarize runs/headlines --file articles.txt

`translate` and `summarize` are one command: what it does was learned from the pairs of the run's training. Without
--beams each token is the most probable one. A line end inside of a target is written as a space.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Mapping, Sequence

from jax import Array

from lmlab.cli.beams import add_beams, beams_of
from lmlab.cli.texts import add_texts, texts_of
from lmlab.contracts import CausalLM, EncoderDecoder
from lmlab.errors import ConfigError
from lmlab.generation.beam import BeamOptions
from lmlab.generation.samplers import Greedy
from lmlab.generation.saved import SavedRun
from lmlab.generation.writing import Author
from lmlab.training.compilation_cache import use_compilation_cache

ROWS = 16
"""Sources that are read together."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds this command's arguments."""
    parser.add_argument("run", metavar="RUN", help="a run folder")
    add_texts(parser, "written a target of")
    parser.add_argument("--length", type=int, help="the most tokens of a target (default: as in the run's training)")
    add_beams(parser, "for the most probable target")
    parser.add_argument("--step", type=int, help="the checkpoint of this step (default: the newest)")


def run(args: argparse.Namespace) -> int:
    """Prints a line for each source."""
    if args.length is not None and args.length < 1:
        raise ConfigError(f"--length {args.length}: it must be at least 1.")
    beams = beams_of(args)
    sources = texts_of(args, "to write a target of")
    use_compilation_cache()
    saved = SavedRun(args.run)
    model = saved.program.abstract_model
    if isinstance(model, CausalLM) or not isinstance(model, EncoderDecoder):
        raise ConfigError(
            f"targets are written by an EncoderDecoder; the model '{saved.program.experiment.model.name}' is none. "
            "lmlab generate continues texts."
        )
    length = args.length or saved.program.experiment.seq_len
    author, params = Author(saved.program, Greedy()), saved.params(args.step)
    for target in _targets(author, params, sources, length, beams):
        print(" ".join(target.splitlines()).strip(), flush=True)
    return 0


def _targets(
    author: Author, params: Mapping[str, Array], sources: Sequence[str], length: int, beams: BeamOptions | None
) -> Iterator[str]:
    """The target of every source, in their order."""
    for first in range(0, len(sources), ROWS):
        some = sources[first : first + ROWS]
        if beams is None:
            yield from author.write(params, some, length=length, seed=0)
            continue
        searched = author.search(params, some, beams, length=length)
        yield from (found[0][0] for found in searched)
