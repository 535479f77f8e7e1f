"""From a sweep's file to its trials: what changes nothing, what is the same, and what can share a program."""

from __future__ import annotations

from pathlib import Path

import pytest

from lmlab.errors import ConfigError
from lmlab.sweeps.trials import plan

BASE = """
experiment.model = @gpt
experiment.loss = @autoregressive
experiment.dataset = @random_tokens
experiment.optimizer = @adamw
experiment.steps = 3
experiment.global_batch_size = 4
experiment.seq_len = 7
gpt.layers = 1
RATE = 0.01
adamw.learning_rate = %RATE
"""


@pytest.fixture
def sweep(tmp_path: Path):
    def of(text: str, *overrides: str):
        path = tmp_path / "mine.gin"
        path.write_text(BASE + text)
        return plan([str(path)], overrides, [])

    return of


def test_axes_that_mean_nothing_in_a_trial_are_left_out_and_equal_trials_are_one(sweep) -> None:
    found = sweep("sweep.axes = {'experiment.model': [@gpt, @lstm], 'gpt.width': [64, 128]}\nsweep.seeds = [5, 6]")
    assert [(trial.settings, trial.seed) for trial in found.trials] == [
        ({"experiment.model": "@gpt", "gpt.width": "64"}, 5),
        ({"experiment.model": "@gpt", "gpt.width": "64"}, 6),
        ({"experiment.model": "@gpt", "gpt.width": "128"}, 5),
        ({"experiment.model": "@gpt", "gpt.width": "128"}, 6),
        ({"experiment.model": "@lstm"}, 5),
        ({"experiment.model": "@lstm"}, 6),
    ]
    assert found.repeated == 2 and found.name == "mine"
    assert [trial.group for trial in found.trials] == [0, 0, 1, 1, 2, 2]
    assert all(trial.resolved.spec.kwargs["seed"] == trial.seed for trial in found.trials)


def test_trials_that_differ_in_numbers_are_one_group(sweep) -> None:
    found = sweep(
        "sweep.axes = {'adamw.learning_rate': [%RATE, 1e-3, @constant], 'gpt.dropout': [0.0, 0.1],"
        " 'experiment.clip_norm': [1.0, None]}\nconstant.peak = 0.5"
    )
    groups = [trial.group for trial in found.trials]
    assert len(groups) == 12 and sorted(map(groups.count, set(groups))) == [2, 2, 4, 4]
    assert [trial.group for trial in sweep("sweep.seeds = [1, 2]\nsweep.together = False").trials] == [0, 1]


def test_spaces_are_chained_and_an_ablation_has_a_baseline(sweep) -> None:
    found = sweep(
        "sweep.axes = {'gpt.layers': [1, 2], 'gpt.dropout': [0.0, 0.1]}\nsweep.combine = 'ablate'\n"
        "sweep.chain = [@wide/space]\nwide/space.axes = {'gpt.width': [64, 96]}"
    )
    assert found.baseline == {"gpt.layers": "1", "gpt.dropout": "0.0"}
    assert [trial.settings for trial in sorted(found.trials, key=lambda t: str(t.settings))] == [
        {"gpt.layers": "1", "gpt.dropout": "0.0"},
        {"gpt.layers": "1", "gpt.dropout": "0.1"},
        {"gpt.layers": "2", "gpt.dropout": "0.0"},
        {"gpt.width": "64"},
        {"gpt.width": "96"},
    ]


def test_an_identity_is_that_of_the_configuration(sweep) -> None:
    one, two = sweep("sweep.seeds = [0]"), sweep("sweep.axes = {'gpt.layers': [1]}")
    assert one.trials[0].id == two.trials[0].id == one.trials[0].resolved.hash
    assert sweep("sweep.seeds = [0]", "gpt.layers = 2").trials[0].id != one.trials[0].id


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "is of no sweep: bind sweep.axes, sweep.seeds or both"),
        ("sweep.axes = {'lstm.width': [8, 16]}", "the axis 'lstm.width' changes nothing in any trial"),
        ("sweep.axes = {'gpt.widht': [8]}", "an axis of the sweep: .*has no parameter 'widht'"),
        ("sweep.axes = {'gpt.width': ['wide']}", "an axis of the sweep: gpt.width wants an int"),
        ("sweep.axes = {'gpt.width = 3; gpt.layers': [8]}", "is no key of a configuration|cannot read this"),
        ("sweep.axes = {'gpt.width': [%WIDTH]}", "no macro named 'WIDTH' is set"),
        ("sweep.seeds = [0]\nlstm.width = 8", "'lstm.width' changes nothing"),
        ("sweep.seeds = [0]\nSPARE = 8", "nothing uses the macro 'SPARE'"),
        ("sweep.seeds = [-1]", "sweep.seeds wants a sequence of int"),
        ("sweep.axis = {'gpt.width': [8]}\nsweep.seeds = [0]", "'axis'"),
    ],
)
def test_what_cannot_be_swept_is_refused(sweep, text: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        sweep(text)


def test_a_macro_that_only_an_axis_uses_is_used(sweep) -> None:
    found = sweep("sweep.axes = {'adamw.learning_rate': [%RATE, 1e-3]}")
    rates = [trial.resolved.spec.kwargs["optimizer"].kwargs["learning_rate"] for trial in found.trials]
    assert rates == [0.01, 0.001]
