"""Trials in one process, a step each in turn or all at once: each is what it is alone."""

from __future__ import annotations

import json
from contextlib import ExitStack
from pathlib import Path

import jax
import numpy as np
import pytest

from lmlab.config import resolve_variants
from lmlab.errors import NonFiniteError
from lmlab.sweeps.population import Lanes, take_turns
from lmlab.sweeps.together import Together, differing
from lmlab.training.loop import begin, train
from lmlab.training.run import Run
from lmlab.training.run_folder import RunFolder
from lmlab.training.signals import StopSignals
from tests.later import later

BASE = """
experiment.model = @gpt
experiment.loss = @autoregressive
experiment.dataset = @random_tokens
experiment.optimizer = @adamw
experiment.steps = 20
experiment.global_batch_size = 4
experiment.seq_len = 7
experiment.log_every = 4
experiment.eval_every = 8
experiment.hooks = []
experiment.writers = []
random_tokens.vocab = 13
gpt.layers = 2
gpt.width = 8
gpt.heads = 2
gpt.bias = False
adamw.learning_rate = @cosine()
cosine.peak = 0.01
perplexity.batches = 1
checkpoints.every = 8
finite_guard.patience = 3
mesh.data = 1
"""
MEMBERS = [
    {"cosine.peak": "0.01", "experiment.seed": "0", "gpt.dropout": "0.1"},
    {"cosine.peak": "0.03", "experiment.seed": "3", "gpt.dropout": "0.2"},
    {"cosine.peak": "1e38", "experiment.seed": "5", "gpt.dropout": "0.0"},
    {"cosine.peak": "0.02", "experiment.seed": "0", "gpt.dropout": "0.0"},
]


def members(*more: str):
    return [variant.resolved for variant in resolve_variants([], [BASE, *more], [], MEMBERS)]


def records(folder: Path) -> list[dict]:
    found = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [{key: value for key, value in record.items() if key != "timing"} for record in found]


def close(here: list[dict], there: list[dict]) -> None:
    assert len(here) == len(there)
    for one, other in zip(here, there, strict=True):
        assert one.keys() == other.keys() and one["step"] == other["step"]
        for key in one.keys() - {"phase"}:
            within = 1e-4 if key == "grad_norm" else 1e-5  # a norm of gradients is no curve
            assert one[key] == pytest.approx(other[key], rel=within, abs=within), (key, one["step"])


def together(found, folder: Path, how: str) -> dict[int, Exception | None]:
    group = Together(differing([one.spec for one in found]))
    lanes = Lanes(group, len(found))
    make = lanes.make if how == "at once" else group.make
    with ExitStack() as held:
        stop = held.enter_context(StopSignals())
        sessions = {
            number: begin(one, RunFolder(folder / str(number)), stop, held, make=make)
            for number, one in enumerate(found)
        }
        return dict(lanes.train(sessions) if how == "at once" else take_turns(sessions))


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    folder = tmp_path_factory.mktemp("alone")
    found = members()
    for number in (0, 1, 3):
        train(found[number], folder / str(number))
    return folder


@pytest.mark.parametrize("how", ["in turns", "at once"])
def test_each_is_what_it_is_alone_and_one_that_diverges_disturbs_nobody(alone, tmp_path, how):
    ended = together(members(), tmp_path, how)
    assert {name: type(error) for name, error in ended.items()} == {
        0: type(None), 1: type(None), 2: NonFiniteError, 3: type(None),
    }  # fmt: skip
    for number in (0, 1, 3):
        close(records(tmp_path / str(number)), records(alone / str(number)))
        here, there = Run(tmp_path / str(number)), Run(alone / str(number))
        assert here.files.status()["state"] == "finished" and here.resolved == there.resolved
        (state, note), (expected, other) = here.restore(), there.restore()
        assert note.step == other.step == 20 and note.fingerprint == other.fingerprint
        assert state.model_state == {}
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5), state, expected)
    assert RunFolder(tmp_path / "2").status()["state"] == "failed"


@pytest.mark.parametrize("how", ["at once", *later(["in turns"])])
def test_a_signal_saves_all_and_they_go_on_alone(alone, tmp_path, how):
    found = members()[:2]
    group = Together(differing([one.spec for one in found]))
    lanes = Lanes(group, 2)
    with ExitStack() as held:
        stop = held.enter_context(StopSignals())
        make = lanes.make if how == "at once" else group.make
        sessions = {n: begin(one, RunFolder(tmp_path / str(n)), stop, held, make=make) for n, one in enumerate(found)}
        sessions[0].hooks = [lambda step, state, last: setattr(stop, "requested", "SIGTERM" if step >= 9 else None)]
        ended = dict(lanes.train(sessions) if how == "at once" else take_turns(sessions))
    assert all("stopped the run at step" in str(error) for error in ended.values())
    for number, one in enumerate(found):
        train(one, tmp_path / str(number))
        close(records(tmp_path / str(number)), records(alone / str(number)))


def test_places_lie_over_devices_and_steps_of_one_dispatch_are_scanned(alone, tmp_path):
    if len(jax.devices()) < 2:
        pytest.skip("one device")
    found = members("mesh.data = 2", "experiment.steps_per_dispatch = 4")
    ended = together([found[0], found[1], found[3]], tmp_path, "at once")
    assert ended == {0: None, 1: None, 2: None}
    for here, there in ((0, 0), (1, 1), (2, 3)):
        close(records(tmp_path / str(here)), records(alone / str(there)))
