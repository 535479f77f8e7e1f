"""Fill the masks in a text, by a run of an encoder that was trained to (`mlm` and its kin, `masked_diffusion`).

lmlab fill runs/bert 'The quick <mask> fox'
lmlab fill runs/bert 'The <mask><mask><mask>' --steps 3 --top 5

`<mask>` stands for the mask, `<separator>` and the like for the other special ids of the run's tokenizer.
"""

from __future__ import annotations

import argparse

import jax
import numpy as np

from lmlab.cli.table import print_table
from lmlab.contracts import BidirectionalLM
from lmlab.errors import ConfigError, DataError
from lmlab.evaluation.attention_map import labels_of
from lmlab.generation.filling import candidates, mask_predict
from lmlab.generation.saved import SavedRun, ids_of_text
from lmlab.training.compilation_cache import use_compilation_cache
from lmlab.training.program import Program


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds this command's arguments."""
    parser.add_argument("run", metavar="RUN", help="a run folder")
    parser.add_argument("text", metavar="TEXT", help="with <mask> where something is to be filled in; for a dataset of "
                        "ids, numbers with spaces between")  # fmt: skip
    parser.add_argument("--top", type=int, default=5, help="tokens to show for each mask (default: 5)")
    parser.add_argument("--steps", type=int, default=1, help="fill in so many steps, in each of which what is least "
                        "sure is filled once more (default: 1)")  # fmt: skip
    parser.add_argument("--step", type=int, help="the checkpoint of this step (default: the newest)")


def run(args: argparse.Namespace) -> int:
    """Prints the most probable tokens of every mask, and the text with all of them filled."""
    for name in ("top", "steps"):
        if getattr(args, name) < 1:
            raise ConfigError(f"--{name} {getattr(args, name)}: it must be at least 1.")
    use_compilation_cache()
    saved = SavedRun(args.run)
    program, mask = saved.program, _mask_of(saved.program)
    ids = ids_of_text(program, args.text)
    places = np.flatnonzero(ids == mask)
    if not len(places):
        raise DataError(f"there is no <mask> in {args.text!r}: write it where something is to be filled in.")
    params, top = saved.params(args.step), min(args.top, program.data.vocab - 1)
    found, shares, filled = jax.jit(
        lambda params, tokens: (
            *candidates(program.model.bind(params), tokens, mask=mask, count=top),
            mask_predict(program.model.bind(params), tokens, mask=mask, steps=args.steps),
        )
    )(params, ids[None])
    rows = []
    for number, place in enumerate(places, start=1):
        names = labels_of(program.tokenizer, np.asarray(found[0, place]))
        rows += [[str(number), name, f"{share:.3f}"] for name, share in zip(names, shares[0, place], strict=True)]
    print_table(rows, ("mask", "token", "probability"))
    print(f"\n{_text_of(program, np.asarray(filled[0]))}")
    return 0


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
