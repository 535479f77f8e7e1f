"""`sweep.over_compute`: which trials a ladder of sizes and numbers of tokens comes to, and what cannot be climbed."""

from __future__ import annotations

from pathlib import Path

import pytest

from lmlab.errors import ConfigError
from lmlab.sweeps.folder import SweepFolder
from lmlab.sweeps.results import read_results
from lmlab.sweeps.trials import plan

BASE = """
experiment.model = @gpt
experiment.loss = @autoregressive
experiment.dataset = @random_tokens
experiment.optimizer = @adamw
experiment.global_batch_size = 4
experiment.seq_len = 7
adamw.learning_rate = 0.01
mesh.data = 1
gpt.heads = 2
sweep.over_compute = @ladder
ladder.sizes = {'gpt.layers': [1, 2, 2], 'gpt.width': [8, 8, 12]}
"""


@pytest.fixture
def climb(tmp_path: Path):
    def of(text: str, *overrides: str):
        path = tmp_path / "mine.gin"
        path.write_text(BASE + text)
        return plan([str(path)], overrides, [])

    return of


def test_every_size_is_trained_on_every_number_of_tokens_in_whole_steps(climb, tmp_path):
    found = climb("ladder.tokens = [28, 100]\nladder.held_out = 1\nsweep.seeds = [5, 6]")
    seen = [(t.settings["gpt.layers"], t.settings["gpt.width"], t.settings["experiment.steps"]) for t in found.trials]
    sizes = [("1", "8"), ("2", "8"), ("2", "12")]
    assert seen == [(*size, steps) for size in sizes for steps in ("1", "4") for _ in (5, 6)]  # 100 / 28 is 3.6
    assert [trial.resolved.spec.kwargs["steps"] for trial in found.trials] == [int(steps) for *_, steps in seen]
    assert found.axes == ("gpt.layers", "gpt.width", "experiment.steps") and found.baseline is None
    folder = SweepFolder(tmp_path / "sweep")
    folder.write(found)
    assert read_results(folder.path).over_compute == (found.axes, 1)


def test_steps_follow_what_the_size_makes_of_a_batch(climb):
    found = climb("ladder.tokens = [1000]", "ladder.sizes = {'gpt.width': [8, 12], 'experiment.seq_len': [10, 25]}")
    assert [trial.resolved.spec.kwargs["steps"] for trial in found.trials] == [25, 10]


def test_other_axes_are_varied_at_every_rung(climb):
    axes = "{'adamw.learning_rate': [0.1, 0.2], 'gpt.dropout': [0.0, 0.1]}"
    found = climb(f"ladder.tokens = [28, 56]\nsweep.axes = {axes}\nsweep.combine = 'ablate'")
    assert len(found.trials) == 3 * 2 * 3 and found.baseline is None
    assert {trial.settings["adamw.learning_rate"] for trial in found.trials} == {"0.1", "0.2"}


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("ladder.tokens = [27]", "27 tokens are less than one step, which has 28"),
        ("ladder.tokens = []", "needs ladder.sizes and ladder.tokens"),
        ("ladder.tokens = [0]", "ladder.tokens wants a sequence of int >= 1"),
        ("ladder.tokens = [28]\nladder.held_out = 3", "leaves none of 3 sizes"),
        (
            "ladder.tokens = [28]\nsweep.axes = {'gpt.width': [8]}",
            "'gpt.width' is an axis of the sweep, and the ladder",
        ),
        ("ladder.tokens = [28]\nsweep.axes = {'experiment.steps': [8]}", "'experiment.steps' is an axis of the sweep"),
        ("ladder.tokens = [28]\ngpt.layer = 3", "'layer'"),
        ("ladder.tokens = [28]\nlstm.layers = 3", "lstm.layers.*changes nothing"),
    ],
)
def test_what_cannot_be_climbed_is_refused(climb, text, why):
    with pytest.raises(ConfigError, match=why):
        climb(text)


@pytest.mark.parametrize(
    ("sizes", "why"),
    [
        ("{'gpt.layers': [1], 'gpt.width': [8, 12]}", "'gpt.layers' 1, 'gpt.width' 2"),
        ("{'experiment.steps': [1, 2]}", "makes no model larger"),
        ("{'lstm.width': [8, 12]}", "'lstm.width' changes nothing"),
        ("{'gpt.width': [7]}", "7 does not divide"),
    ],
)
def test_sizes_that_are_none_are_refused(climb, sizes, why):
    with pytest.raises(ConfigError, match=why):
        found = climb("ladder.tokens = [28]", f"ladder.sizes = {sizes}")
        from lmlab.training.program import Program

        Program(found.trials[0].resolved)


def test_a_ladder_that_no_sweep_climbs_changes_nothing_and_is_refused(tmp_path):
    path = tmp_path / "mine.gin"
    path.write_text(BASE.replace("sweep.over_compute = @ladder", "sweep.seeds = [1]\nexperiment.steps = 2"))
    with pytest.raises(ConfigError, match=r"ladder\.sizes.*changes nothing"):
        plan([str(path)], [], [])
