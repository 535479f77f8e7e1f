"""Fill the masks in a text, by a run of an encoder that was trained to (`mlm` and its kin, `masked_diffusion`).

lmlab fill runs/bert 'The quick <mask> fox'
lmlab fill runs/bert 'The <mask><mask><mask>' --steps 3 --top 5
lmlab fill runs/bert 'The ' --masks 20 --draw gibbs --steps 5 --count 3     # texts, token by token given all others
lmlab fill runs/diffusion --masks 200 --draw diffusion --steps 100          # from all masks to none

`<mask>` stands for the mask, `<separator>` and the like for the other special ids of the run's tokenizer.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from lmlab.cli.table import print_table
from lmlab.contracts import BidirectionalLM
from lmlab.errors import ConfigError, DataError
from lmlab.evaluation.attention_map import labels_of
from lmlab.generation.diffusion import unmask
from lmlab.generation.filling import candidates, gibbs, mask_predict
from lmlab.generation.saved import SavedRun, ids_of_text
from lmlab.training.compilation_cache import use_compilation_cache
from lmlab.training.program import Program
from lmlab.training.randomness import GENERATION, row_keys, stream_key


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds this command's arguments."""
    parser.add_argument("run", metavar="RUN", help="a run folder")
    parser.add_argument("text", metavar="TEXT", nargs="?", default="", help="with <mask> where something is "
                        "to be filled in; for a dataset of ids, numbers with spaces between")  # fmt: skip
    parser.add_argument("--top", type=int, default=5, help="tokens to show for each mask (default: 5)")
    parser.add_argument("--steps", type=int, default=1, help="fill in so many steps, in each of which what is least "
                        "sure is filled once more (default: 1)")  # fmt: skip
    parser.add_argument("--masks", type=int, default=0, metavar="N", help="put so many masks behind the text")
    parser.add_argument("--draw", choices=("gibbs", "diffusion"), help="draw tokens instead of taking the most "
                        "probable: one after the other given all others, each --steps times; or as masked diffusion "
                        "does, in --steps steps (at best as many as there are masks)")  # fmt: skip
    parser.add_argument("--count", type=int, default=1, help="of --draw: texts to write (default: 1)")
    parser.add_argument("--seed", type=int, default=0, help="of --draw: the same seed writes the same texts "
                        "(default: 0)")  # fmt: skip
    parser.add_argument("--step", type=int, help="the checkpoint of this step (default: the newest)")


def run(args: argparse.Namespace) -> int:
    """Prints the most probable tokens of every mask and the text with all of them filled, or texts that are drawn."""
    _check(args)
    use_compilation_cache()
    saved = SavedRun(args.run)
    mask = _mask_of(saved.program)
    behind = "<mask>" if saved.program.tokenizer else " <mask>"
    ids = ids_of_text(saved.program, args.text + behind * args.masks)
    if mask not in ids:
        raise DataError(f"there is no <mask> in {args.text!r}: write it where something is to be filled in.")
    params = saved.params(args.step)
    if args.draw:
        _show_drawn(saved.program, params, ids, mask, args)
    else:
        _show_candidates(saved.program, params, ids, mask, args)
    return 0


def _check(args: argparse.Namespace) -> None:
    for name, least in (("top", 1), ("steps", 1), ("count", 1), ("masks", 0)):
        if getattr(args, name) < least:
            raise ConfigError(f"--{name} {getattr(args, name)}: it must be at least {least}.")
    if not 0 <= args.seed < 2**32:
        raise ConfigError(f"--seed {args.seed}: it must be between 0 and {2**32 - 1}.")
    if args.count > 1 and not args.draw:
        raise ConfigError("the most probable text is one: --count needs --draw.")


def _show_candidates(
    program: Program, params: Mapping[str, Array], ids: np.ndarray, mask: int, args: argparse.Namespace
) -> None:
    found, shares, filled = jax.jit(
        lambda params, tokens: (
            *candidates(program.model.bind(params), tokens, mask=mask, count=min(args.top, program.data.vocab - 1)),
            mask_predict(program.model.bind(params), tokens, mask=mask, steps=args.steps),
        )
    )(params, ids[None])
    rows = []
    for number, place in enumerate(np.flatnonzero(ids == mask), start=1):
        names = labels_of(program.tokenizer, np.asarray(found[0, place]))
        rows += [[str(number), name, f"{share:.3f}"] for name, share in zip(names, shares[0, place], strict=True)]
    print_table(rows, ("mask", "token", "probability"))
    print(f"\n{_text_of(program, np.asarray(filled[0]))}")


def _show_drawn(
    program: Program, params: Mapping[str, Array], ids: np.ndarray, mask: int, args: argparse.Namespace
) -> None:
    draw = partial(gibbs, sweeps=args.steps) if args.draw == "gibbs" else partial(unmask, steps=args.steps)
    keys = row_keys(stream_key(args.seed, GENERATION), jnp.arange(args.count))
    rows = np.tile(ids, (args.count, 1))
    drawn = jax.jit(lambda params, rows, keys: draw(program.model.bind(params), rows, keys, mask=mask))(
        params, rows, keys
    )
    for number, row in enumerate(np.asarray(drawn), start=1):
        if args.count > 1:
            print(f"--- sample {number} ---")
        print(_text_of(program, row))


def _mask_of(program: Program) -> int:
    """The id of the mask; ConfigError where the model fills none."""
    name = program.experiment.model.name
    if not isinstance(program.abstract_model, BidirectionalLM):
        raise ConfigError(f"masks are filled by a BidirectionalLM; the model '{name}' is none.")
    if "mask" not in program.data.special_ids:
        raise ConfigError(f"the run's {'tokenizer' if program.tokenizer else 'dataset'} has no id for 'mask'.")
    return program.data.special_ids["mask"]


def _text_of(program: Program, ids: np.ndarray) -> str:
    """The text of ids, special ones as `<role>`."""
    if program.tokenizer is None:
        return " ".join(map(str, ids))
    pieces, roles = program.tokenizer.token_bytes(), {i: f"<{r}>" for r, i in program.data.special_ids.items()}
    return b"".join(roles[i].encode() if i in roles else pieces[i] for i in map(int, ids)).decode("utf-8", "replace")
