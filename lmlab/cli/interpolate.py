"""Write the texts between two texts, of a run whose model has a latent vector per text (a text VAE).

lmlab interpolate runs/vae 'i want to talk to you .' 'she did not want to be with him .'
lmlab interpolate runs/vae 'yes .' 'no .' --steps 5 --spherical --temperature 0.5
lmlab interpolate runs/basic '1000 3 14 15 1001' '1000 92 65 35 1001'      # a dataset of ids: whole rows
"""

from __future__ import annotations

import argparse

from lmlab.errors import ConfigError
from lmlab.generation.interpolation import Interpolation
from lmlab.generation.samplers import Sample
from lmlab.generation.saved import SavedRun
from lmlab.training.compilation_cache import use_compilation_cache


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds this command's arguments."""
    parser.add_argument("run", metavar="RUN", help="a run folder")
    parser.add_argument("texts", metavar="TEXT", nargs=2, help="the texts at the two ends; for a dataset of ids, rows "
                        "of numbers with spaces between")  # fmt: skip
    parser.add_argument("--steps", type=int, default=8, help="texts to write, both ends included (default: 8)")
    parser.add_argument("--spherical", action="store_true", help="go along an arc around the origin, not along a line")
    parser.add_argument("--length", type=int, help="the most tokens of a text (default: as many as a training row)")
    parser.add_argument("--temperature", type=float, default=0.0, help="0 takes the most probable token (default: 0)")
    parser.add_argument("--seed", type=int, default=0, help="the same seed writes the same texts (default: 0)")
    parser.add_argument("--step", type=int, help="the checkpoint of this step (default: the newest)")


def run(args: argparse.Namespace) -> int:
    """Writes a line for each text: how far it is on the way, and what it says."""
    for name, least in (("steps", 2), ("length", 1)):
        if getattr(args, name) is not None and getattr(args, name) < least:
            raise ConfigError(f"--{name} {getattr(args, name)}: it must be at least {least}.")
    if not 0 <= args.seed < 2**32:
        raise ConfigError(f"--seed {args.seed}: it must be between 0 and {2**32 - 1}.")
    sampler = Sample(temperature=args.temperature)
    use_compilation_cache()
    saved = SavedRun(args.run)
    program = saved.program
    interpolation, texts = Interpolation(program, sampler), (args.texts[0], args.texts[1])
    interpolation.rows(texts)  # what is wrong with them is said before anything is loaded
    params = saved.params(args.step)
    length = args.length or program.experiment.seq_len
    written = interpolation.write(
        params, texts, steps=args.steps, length=length, spherical=args.spherical, seed=args.seed
    )
    for place, text in written:
        print(f"{place:.2f}  {text}")
    return 0
