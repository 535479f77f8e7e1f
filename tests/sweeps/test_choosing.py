"""How a sweep is trained where nobody said it: a measurement decides, and where it fails, nothing stops."""

from __future__ import annotations

import os

import jax
import pytest

from lmlab.cli.main import main
from lmlab.errors import DataError
from lmlab.sweeps import choosing
from lmlab.sweeps.choosing import Choice, choose, measure
from lmlab.sweeps.folder import SweepFolder
from lmlab.sweeps.together import Together
from lmlab.sweeps.trials import plan

FILE = """
experiment.model = @elman
experiment.loss = @autoregressive
experiment.dataset = @random_tokens
experiment.optimizer = @sgd
experiment.steps = 8
experiment.global_batch_size = 3
experiment.seq_len = 5
experiment.hooks = []
random_tokens.vocab = 11
elman.width = 4
elman.layers = 1
mesh.data = 1
sweep.axes = {'sgd.learning_rate': [0.1, 0.3]}
sweep.seeds = [0, 1]
"""


def told(monkeypatch, platform, whole, each, vmap=None):
    def measured(folder, processors, group=0):
        if isinstance(each, Exception):
            raise each
        seconds = [whole] if len(processors) == 1 else each
        return [{"platform": platform, "sequential": one, "vmap": vmap} for one in seconds]

    monkeypatch.setattr(choosing, "_measured", measured)
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: {0, 1})


@pytest.mark.parametrize(
    ("platform", "whole", "each", "vmap", "expected"),
    [
        ("cpu", 0.010, [0.012, 0.014], None, (2, "sequential")),  # 6.5 ms a step
        ("cpu", 0.010, [0.018, 0.019], None, (1, "sequential")),  # 9.25 ms: not worth it
        ("gpu", 0.010, [], 0.002, (1, "vmap")),
        ("gpu", 0.010, [], 0.0095, (1, "sequential")),
        ("gpu", 0.010, [], None, (1, "sequential")),
    ],
)
def test_the_faster_way_is_taken(monkeypatch, tmp_path, platform, whole, each, vmap, expected):
    told(monkeypatch, platform, whole, each, vmap)
    found = choose(SweepFolder(tmp_path), ["a", "b", "c"], 5_000)
    assert (found.workers, found.strategy) == expected
    assert choose(SweepFolder(tmp_path), ["a", "b", "c"], 999) == Choice(1, "sequential")
    assert choose(SweepFolder(tmp_path), ["a"], 5_000) == Choice(1, "sequential")


def test_what_cannot_be_measured_is_trained_and_says_so_there(monkeypatch, tmp_path):
    told(monkeypatch, "cpu", 0.0, DataError("the corpus is not here"))
    assert choose(SweepFolder(tmp_path), ["a", "b"], 5_000) == Choice(
        1, "sequential", "not measured: the corpus is not here"
    )


def test_a_step_alone_and_with_others_is_timed(tmp_path, monkeypatch):
    monkeypatch.setattr(choosing, "SECONDS", 0.01)
    (tmp_path / "mine.gin").write_text(FILE)
    found = plan([str(tmp_path / "mine.gin")], [], [])
    folder = SweepFolder(tmp_path / "sweep")
    folder.write(found)
    seconds = measure(folder, 0)
    assert seconds["platform"] == jax.default_backend() and seconds["sequential"] > 0
    group = Together(("seed", "optimizer.learning_rate"))
    assert choosing._of_many(group, group.make(found.trials[0].resolved), 4) > 0


def test_the_time_of_a_sweep_is_said_before_it_is_run(tmp_path, capsys):
    (tmp_path / "mine.gin").write_text(FILE)
    assert main(["sweep", str(tmp_path / "mine.gin"), "--dry-run", "--measure"]) == 0
    assert "their steps take about" in capsys.readouterr().out
    assert main(["sweep", str(tmp_path / "mine.gin"), "--measure"]) == 2
    assert "--measure is of --dry-run" in capsys.readouterr().err
