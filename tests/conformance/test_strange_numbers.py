"""A number that makes no sense is refused by name before anything is computed; one that is not can be traced."""

from __future__ import annotations

import math

import jax
import pytest

from lmlab.config import build, parameters
from lmlab.config.types import fit
from lmlab.errors import DataError, LmlabError
from lmlab.registry import CATALOGUE
from lmlab.testing.tiny import Tiny
from lmlab.training.step import make_step
from tests.conformance.conftest import HELD_TO_ALL

STRANGE = (-1, 0, 1e300)


def numbers():
    """Every number of every component with every strange value; those after the first are long, but for some."""
    for entry in CATALOGUE.entries().values():
        if not entry.module.startswith("lmlab.") or entry.kind == "launcher":
            continue
        for name in (name for name, found in parameters(entry).items() if takes_numbers(found.annotation)):
            at_once = STRANGE if entry.name in HELD_TO_ALL else STRANGE[:1]
            yield pytest.param(entry, name, at_once, id=f"{entry.name}.{name}")
            if later := STRANGE[len(at_once) :]:
                yield pytest.param(entry, name, later, id=f"{entry.name}.{name}-later", marks=pytest.mark.long)


def takes_numbers(annotation):
    try:
        return bool(fit(1, annotation))
    except Exception:
        return False


@pytest.mark.filterwarnings("ignore:overflow")  # 1e300 is no float32
@pytest.mark.parametrize(("entry", "name", "values"), list(numbers()))
def test_a_strange_number_is_refused_or_can_be_traced(entry, name, values, tmp_path):
    for value in values:
        try:
            program = Tiny(entry, tmp_path).program(**{f"{entry.name}.{name}": value})
        except LmlabError as error:
            of_its_data = isinstance(error, DataError) and entry.name in str(error)  # another column of a file
            assert name in str(error) or "devices" in str(error) or of_its_data, error
            continue
        found = program.abstract_batch
        if entry.kind not in ("dataset", "tokenizer"):  # whose numbers no traced function sees
            found = jax.eval_shape(make_step(program.recipe), program.abstract_state, found)
        for leaf in jax.tree.leaves(found):
            assert math.prod(leaf.shape) >= 1, f"{entry.name}.{name} = {value}: {leaf}"
        for spec in (*program.experiment.evaluators, *program.experiment.hooks):
            build(spec)
