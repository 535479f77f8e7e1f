"""Successive halving: who goes on is who is best at a rung, and goes on as if alone."""

from __future__ import annotations

import json

import pytest
from sweep_folder import make_sweep

from lmlab.cli.main import main
from lmlab.errors import ConfigError
from lmlab.sweeps.folder import SweepFolder
from lmlab.sweeps.race import Race
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
experiment.writers = []
experiment.eval_every = 2
experiment.log_every = 1
random_tokens.vocab = 11
elman.width = 4
elman.layers = 1
perplexity.batches = 1
mesh.data = 1
checkpoints.every = 0
finite_guard.patience = 1
sweep.axes = {'sgd.learning_rate': [0.1, 3e38, 0.3, 0.03, 0.2]}
sweep.seeds = [0, 1]
"""
TWO_AT_ONCE = ("--workers", "2", "--set", "sweep.strategy = 'vmap'")
HALVING = "sweep.halving = @halving()\nhalving.rungs = (2, 4)\nhalving.keep = 0.4\n"


def read(sweep, name):
    return {path.parent.name: json.loads(path.read_text()) for path in sweep.glob(f"trials/*/{name}")}


def measured(run):
    records = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return {record["step"]: record["valid/nats_per_token"] for record in records if record["phase"] == "eval"}


@pytest.mark.parametrize(
    "options", [(), pytest.param(("--workers", "2", "--set", "sweep.strategy = 'vmap'"), marks=pytest.mark.long)]
)
def test_the_best_go_on_and_end_where_they_would_have_ended_alone(tmp_path, options):
    whole, raced = tmp_path / "whole", tmp_path / "raced"
    (tmp_path / "whole.gin").write_text(FILE)
    (tmp_path / "raced.gin").write_text(FILE + HALVING)
    assert main(["sweep", str(tmp_path / "whole.gin"), "--folder", str(whole)]) == 1
    assert main(["sweep", str(tmp_path / "raced.gin"), "--folder", str(raced), *options]) == 1
    records = read(raced, "trial.json")
    assert records.keys() == read(whole, "trial.json").keys()
    curves = {
        trial: measured(whole / "trials" / trial) for trial, record in records.items() if record["status"] != "nan"
    }

    def best(settings, rung, number):  # by brute force, from the sweep that nobody was let go of in
        means = {rate: sum(curves[t][rung] for t in members) for rate, members in settings.items()}
        return {rate: settings[rate] for rate in sorted(means, key=means.get)[:number]}

    settings = {}
    for trial in curves:
        settings.setdefault(records[trial]["settings"]["sgd.learning_rate"], []).append(trial)
    after_two = best(settings, 2, 2)  # of five, one of which has diverged
    after_four = best(after_two, 4, 1)
    expected = {trial: "ok" for members in after_four.values() for trial in members}
    for trial, record in records.items():
        nan = float(record["settings"]["sgd.learning_rate"]) > 1
        assert record["status"] == ("nan" if nan else expected.get(trial, "pruned")), record["message"]
        if not nan:
            gone_on = {rate for rate, members in after_two.items() if trial in members}
            steps = 8 if trial in expected else 4 if gone_on else 2
            found = measured(raced / "trials" / trial)
            assert max(found) == steps
            assert found == pytest.approx({step: curves[trial][step] for step in found}, rel=1e-5)
    assert json.loads((raced / "sweep.json").read_text())["halving"]["rungs"] == [2, 4]
    # The same command finds nothing left, and the report reads what there is.
    before = read(raced, "trial.json")
    assert main(["sweep", str(tmp_path / "raced.gin"), "--folder", str(raced), *options]) == 1
    assert read(raced, "trial.json") == before
    assert main(["report", str(raced), "--metric", "valid/nats_per_token"]) == 0


def test_a_rung_waits_for_all_and_a_failure_is_the_worst(tmp_path):
    settings = [{"rate": str(rate)} for rate in (1, 2, 3)]
    trials = make_sweep(tmp_path, settings, (0,), lambda one, seed: -float(one["rate"]), statuses={})
    race = Race(SweepFolder(tmp_path), {"rungs": [5], "keep": 0.5, "metric": "valid/nats_per_token", "better": None})
    assert race.rungs == (5, None)
    assert race.undecided(trials, 5) == trials  # no status says that they came so far
    for trial in trials:
        (tmp_path / "trials" / trial["id"] / "status.json").write_text('{"state": "stopped", "step": 5, "steps": 9}')
    assert race.undecided(trials, 5) == []
    assert race.going_on(trials, 5) == trials[1:]
    metrics = tmp_path / "trials" / trials[2]["id"] / "metrics.jsonl"
    metrics.write_text(metrics.read_text().replace('"valid/nats_per_token"', '"other"'))  # as of one that diverged
    assert race.going_on(trials, 5) == trials[:2]
    assert Race(SweepFolder(tmp_path), None).rungs == (None,)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("halving.rungs = (3,)", "not measured at step 3, for experiment.eval_every = 2"),
        ("halving.rungs = (4, 2)", "that rise"),
        ("halving.rungs = (2, 8)", "8 is not before the end"),
        ("halving.rungs = (2,)\nhalving.metric = 'valid/entropy'", "lower or"),
    ],
)
def test_rungs_at_which_nothing_can_be_decided_are_refused(tmp_path, text, message):
    (tmp_path / "mine.gin").write_text(f"{FILE}sweep.halving = @halving()\n{text}\n")
    with pytest.raises(ConfigError, match=message):
        plan([str(tmp_path / "mine.gin")], [], [])
