"""A number that makes no sense is refused by name before anything is computed; one that is not can be traced."""

from __future__ import annotations

import math

import jax
import pytest

from lmlab.config import build, parameters
from lmlab.config.types import fit
from lmlab.errors import LmlabError
from lmlab.registry import CATALOGUE
from lmlab.testing.tiny import Tiny
from lmlab.training.step import make_step

STRANGE = (-1, 0, 1e300)


def numbers():
    for entry in CATALOGUE.entries().values():
        if entry.module.startswith("lmlab.") and entry.kind != "launcher":
            yield from ((entry, name) for name, found in parameters(entry).items() if takes_numbers(found.annotation))


def takes_numbers(annotation):
    try:
        return bool(fit(1, annotation))
    except Exception:
        return False


@pytest.mark.filterwarnings("ignore:overflow")  # 1e300 is no float32
@pytest.mark.parametrize(("entry", "name"), [pytest.param(e, n, id=f"{e.name}.{n}") for e, n in numbers()])
def test_a_strange_number_is_refused_or_can_be_traced(entry, name, tmp_path):
    for value in STRANGE:
        try:
            program = Tiny(entry, tmp_path).program(**{f"{entry.name}.{name}": value})
        except LmlabError as error:
            assert name in str(error) or "devices" in str(error), error
            continue
        found = program.abstract_batch
        if entry.kind not in ("dataset", "tokenizer"):  # whose numbers no traced function sees
            found = jax.eval_shape(make_step(program.recipe), program.abstract_state, found)
        for leaf in jax.tree.leaves(found):
            assert math.prod(leaf.shape) >= 1, f"{entry.name}.{name} = {value}: {leaf}"
        for spec in (*program.experiment.evaluators, *program.experiment.hooks):
            build(spec)
