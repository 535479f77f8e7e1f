"""Pruning while training: against the definition written out in NumPy, and in runs that others go on from."""

from __future__ import annotations

from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest

from lmlab.config import resolve
from lmlab.errors import ConfigError
from lmlab.generation.saved import SavedRun
from lmlab.optim.optimizers import SGD
from lmlab.optim.pruned import Pruned
from lmlab.training.loop import train
from tests.acceptance.small import SMALL

SHAPES = {"a/kernel": (5, 4), "blocks/kernel": (2, 3, 7), "a/bias": (4,)}
ROLES = {"a/kernel": "kernel", "blocks/kernel": "kernel", "a/bias": "bias"}
STACKED = frozenset({"blocks/kernel"})
RATE, STEPS = 0.3, 9


def draw(seed: int) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    return {path: rng.normal(size=shape).astype(np.float32) for path, shape in SHAPES.items()}


def descend(rule, params, steps=STEPS, first=0):
    state = rule.init(draw(99))  # as a program's is made: before parameters are loaded
    seen = []
    for step in range(first, first + steps):
        updates, state = rule.update(draw(step + 1), state, params, step=jnp.int32(step))
        params = {path: params[path] + updates[path] for path in params}
        seen.append({path: np.asarray(value) for path, value in params.items()})
    return seen


def by_hand(criterion: str, sparsity: float, begin: int, end: int, every: int) -> list[dict[str, np.ndarray]]:
    """Zhu & Gupta's schedule; masks by sorting; movement by the sum of gradient times weight; in float64."""
    dense = {path: value.astype(np.float64) for path, value in draw(0).items()}
    masks = {path: np.ones(value.shape, bool) for path, value in dense.items()}
    scores = {path: np.zeros(value.shape) for path, value in dense.items()}
    seen = []
    for step in range(STEPS):
        gradients = draw(step + 1)
        for path in dense:
            scores[path] -= gradients[path] * dense[path]
            dense[path] = dense[path] - RATE * gradients[path] * masks[path]
        t = step + 1
        if begin <= t <= end and ((t - begin) % every == 0 or t == end):
            share = sparsity * (1 - (1 - (t - begin) / (end - begin)) ** 3)
            for path in ("a/kernel", "blocks/kernel"):
                by = scores[path] if criterion == "movement" else np.abs(dense[path])
                for block in range(len(by)) if path in STACKED else [slice(None)]:
                    flat = by[block].ravel()
                    kept = np.ones(flat.size, bool)
                    kept[np.argsort(flat)[: round(share * flat.size)]] = False
                    masks[path][block] = kept.reshape(by[block].shape)
        seen.append({path: dense[path] * masks[path] for path in dense})
    return seen


@pytest.mark.parametrize("criterion", ["magnitude", "movement"])
@pytest.mark.parametrize("begin, end, every", [(0, 6, 1), (2, 7, 2)])
def test_it_is_the_definition_written_out(criterion: str, begin: int, end: int, every: int) -> None:
    rule = Pruned(SGD(RATE), STACKED, 0.7, criterion, begin, end, every).transformation(ROLES)
    wanted = by_hand(criterion, 0.7, begin, end, every)
    for found, right in zip(descend(rule, draw(0)), wanted, strict=True):
        for path in SHAPES:
            np.testing.assert_allclose(found[path], right[path], atol=1e-5)
            np.testing.assert_array_equal(found[path] == 0, right[path] == 0)
    blocks = found["blocks/kernel"] == 0
    assert blocks[0].sum() == blocks[1].sum() == round(0.7 * 21) and (found["a/kernel"] == 0).sum() == 14
    assert (found["a/bias"] != 0).all()


def test_what_is_zero_stays_so_in_fine_tuning_and_nothing_else_is() -> None:
    params = draw(0)
    zero = params["a/kernel"] < 0
    params["a/kernel"][zero] = 0
    found = descend(Pruned(SGD(RATE), STACKED).transformation(ROLES), params)[-1]
    np.testing.assert_array_equal(found["a/kernel"] == 0, zero)
    moved = params["a/kernel"] - RATE * sum(draw(step + 1)["a/kernel"] for step in range(STEPS))
    np.testing.assert_allclose(found["a/kernel"][~zero], moved[~zero], atol=1e-5)


def test_what_cannot_be_pruned_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"pruned\.end = 3 must be behind pruned\.begin = 3"):
        Pruned(SGD(RATE), sparsity=0.5, begin=3, end=3).transformation(ROLES)
    with pytest.raises(ConfigError, match=r"no kernel's path has 'b\$' in it"):
        Pruned(SGD(RATE), sparsity=0.5, kernels=("b$",)).transformation(ROLES)
    with pytest.raises(ConfigError, match="no regular expression"):
        Pruned(SGD(RATE), sparsity=0.5, kernels=("(",)).transformation(ROLES)


RUN = """
experiment.model = @gpt
experiment.loss = @autoregressive
experiment.dataset = @text_files
text_files.train = '{folder}/corpus.txt'
text_files.split_by = 'position'
text_files.valid_share = 0.2
text_files.test_share = 0.2
gpt.width = 8
gpt.heads = 2
gpt.layers = 2
experiment.optimizer = @pruned
pruned.optimizer = @adamw
"""


def trained(folder: Path, name: str, more: str) -> SavedRun:
    train(resolve([], [SMALL, RUN.format(folder=folder), "experiment.steps = 4", more]), folder / name)
    return SavedRun(str(folder / name))


def test_a_run_is_pruned_as_asked_and_goes_on_pruned_from_there(tmp_path: Path) -> None:
    (tmp_path / "corpus.txt").write_text("to be or not to be, that is the question\n" * 40)
    first = trained(tmp_path, "first", "pruned.sparsity = 0.75; pruned.end = 3")
    params, model = first.params(), first.program.model
    zeros = {path: np.asarray(params[path] == 0) for path, role in model.roles.items() if role == "kernel"}
    for path, there in zeros.items():
        for block in there if path in model.stacked else [there]:
            assert block.sum() == round(0.75 * block.size), path
    again = f"experiment.init_from = @init_from; init_from.run = '{tmp_path}/first'"
    after = trained(tmp_path, "second", again).params()
    for path, there in zeros.items():
        np.testing.assert_array_equal(after[path] == 0, there)
        assert np.asarray(after[path] != params[path])[~there].mean() > 0.5
