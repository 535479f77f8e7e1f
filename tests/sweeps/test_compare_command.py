"""`lmlab compare` on real runs, and a report on a sweep whose trials are real runs."""

import json
import shutil
from types import SimpleNamespace

import numpy as np
import pytest

from lmlab.cli.main import main
from lmlab.config import resolve
from lmlab.sweeps.report import make_report
from lmlab.sweeps.results import read_results
from lmlab.sweeps.two_runs import Point, compare_data, first_difference, thinned
from lmlab.training.loop import train
from tests.acceptance.small import SMALL
from tests.sweeps.sweep_folder import trial_id

KEY = "adamw.learning_rate"
TINY = """
experiment.model = @gpt
experiment.loss = @autoregressive
experiment.dataset = @random_tokens
experiment.tokenizer = None
experiment.steps = 6
experiment.log_every = 2
experiment.eval_every = 3
experiment.evaluators = [@perplexity]
perplexity.batches = 1
random_tokens.vocab = 11
gpt.width = 6
gpt.heads = 2
gpt.layers = 1
"""


@pytest.fixture(scope="module")
def sweep(tmp_path_factory):
    """Two learning rates and two seeds, trained; the second rate's second seed was never begun."""
    folder = tmp_path_factory.mktemp("compare") / "rates"
    trials = [{"id": trial_id({KEY: rate}, seed), "settings": {KEY: rate}, "seed": seed, "group": 0}
              for rate in ("0.01", "0.3") for seed in (0, 1)]  # fmt: skip
    folder.mkdir()
    saved = {"name": "rates", "axes": [KEY], "baseline": {KEY: "0.01"}, "seeds": [0, 1], "trials": trials}
    (folder / "sweep.json").write_text(json.dumps(saved))
    for trial in trials[:3]:
        run = folder / "trials" / trial["id"]
        settings = [f"{KEY} = {trial['settings'][KEY]}", f"experiment.seed = {trial['seed']}"]
        train(resolve([], [SMALL, TINY, *settings]), run)
        attempt = {"started": "2026-01-01T00:00:00+00:00", "seconds": 2.0, "status": "ok"}
        kept = {name: trial[name] for name in ("id", "settings", "seed")}
        record = {**kept, "sweep": "rates", "status": "ok", "message": None, "traceback": None, "attempts": [attempt]}
        (run / "trial.json").write_text(json.dumps(record))
    return folder


@pytest.fixture
def runs(sweep):
    return [sweep / "trials" / trial_id({KEY: rate}, seed) for rate, seed in (("0.01", 0), ("0.01", 1), ("0.3", 0))]


def compared(capsys, *words):
    assert main(["compare", *map(str, words)]) == 0
    return capsys.readouterr().out


def test_a_report_reads_what_training_writes(sweep):
    report = make_report(read_results(sweep))
    assert report.results.counts == {"ok": 3, "pending": 1} and report.metric == "valid/nats_per_token"
    by_rate = {variant.settings[KEY]: variant for variant in report.variants}
    other, base = by_rate["0.3"], by_rate["0.01"]
    assert other.changes == (("optimizer.learning_rate", "0.01", "0.3"),)
    assert other.difference.seeds == (0,) and other.difference.p is None and base.mean.interval is not None
    trial = base.trials[0]
    last = [json.loads(line) for line in (trial.folder / "metrics.jsonl").read_text().splitlines()][-1]
    assert last["phase"] == "eval" and base.values[0] == last["valid/nats_per_token"]
    assert trial.curve("train/loss")[0] == [2, 4, 6] and trial.curve(report.metric)[0] == [3, 6]
    assert trial.tokens == pytest.approx(6 * 4 * 16)  # steps x rows x targets of a row
    width, vocab, length = 6, 11, 16
    block = 12 * width**2 + 13 * width  # Radford et al. 2019: attention 4 D^2 + 4 D, MLP 8 D^2 + 5 D, two norms 4 D
    assert trial.parameters == vocab * width + length * width + block + 2 * width


def test_a_run_equals_its_copy_to_the_bit(runs, tmp_path, capsys):
    shutil.copytree(runs[0], tmp_path / "copy")
    text = compared(capsys, runs[0], tmp_path / "copy")
    assert "no difference: both are configuration" in text and "the same batch at every step" in text
    assert "equal to the bit at all 3 steps" in text and "equal to the bit at all 2 steps" in text


def test_another_learning_rate_reads_the_same_data_and_parts_after_the_first_update(runs, capsys):
    text = compared(capsys, runs[0], runs[2])
    assert "optimizer.learning_rate  0.01" in text and "the same batch at every step" in text
    assert "train/loss\ndiffers at step 2: " in text and "finished, step 6 of 6" in text
    ends = [make_ends(run) for run in (runs[0], runs[2])]
    [line] = [line for line in text.splitlines() if line.startswith("valid/nats_per_token ")]
    assert line.split()[1:] == [f"{ends[0]:.6g}", f"{ends[1]:.6g}", f"{ends[1] - ends[0]:+.4g}"]


def make_ends(run):
    return json.loads((run / "metrics.jsonl").read_text().splitlines()[-1])["valid/nats_per_token"]


def test_another_seed_reads_other_data_from_the_first_batch_on(runs, capsys):
    text = compared(capsys, runs[0], runs[1])
    assert "the fingerprints differ:" in text and "seed: 0 → 1" in text
    assert "batches differ from step 0 on (0 is the first), in tokens" in text


def test_a_planted_difference_is_found_at_its_step_and_within_a_tolerance_it_is_not(runs, tmp_path, capsys):
    shutil.copytree(runs[0], tmp_path / "copy")
    path = tmp_path / "copy" / "metrics.jsonl"
    records = [json.loads(line) for line in path.read_text().splitlines()]
    [changed] = [record for record in records if record["phase"] == "train" and record["step"] == 4]
    changed["loss"] *= 1 + 1e-6
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    text = compared(capsys, runs[0], tmp_path / "copy")
    assert "equal to the bit until step 2, differs at step 4" in text
    text = compared(capsys, runs[0], tmp_path / "copy", "--tolerance", "1e-5")
    assert "equal within 1e-05 of it at all 3 steps" in text


def test_runs_that_record_at_other_steps_are_said_to(runs, tmp_path, capsys):
    train(resolve([], [SMALL, TINY, f"{KEY} = 0.01; experiment.log_every = 3"]), tmp_path / "threes")
    text = compared(capsys, runs[0], tmp_path / "threes")
    assert "they differ only in how the run is carried out" in text
    assert "the runs have them every 2 and every 3 steps" in text
    assert "equal to the bit at all 2 steps" in text  # the evaluations


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["nowhere"], 6, "nowhere is no run folder"),
        (["{run}", "--metric", "valid/bleu"], 2, "--metric valid/bleu: not both runs have it. Both end with: train/"),
        (["{run}", "--tolerance", "-1"], 2, "--tolerance -1: give a share"),
        (["{run}", "--batches", "-1"], 2, "--batches -1"),
        (["{damaged}"], 6, "metrics.jsonl:1: this line is not JSON"),
    ],
)
def test_a_mistake_is_one_clear_line(runs, tmp_path, capsys, words, code, said):
    shutil.copytree(runs[0], tmp_path / "damaged", ignore=shutil.ignore_patterns("checkpoints"))
    (tmp_path / "damaged" / "metrics.jsonl").write_text("rubbish\n")
    places = {"run": runs[1], "damaged": tmp_path / "damaged"}
    assert main(["compare", str(runs[0]), *(word.format(**places) for word in words)]) == code
    told = capsys.readouterr()
    assert said in told.err and "Traceback" not in told.err and not told.out


class Batches:
    def __init__(self, changed_at=None):
        self.changed_at = changed_at

    def fingerprint(self):
        return {"made": self.changed_at}

    def batch(self, k):
        return {"tokens": np.full((2, 3), k), "weights": np.full((2, 3), float(k == self.changed_at))}


def run_on(batches, folder):
    return SimpleNamespace(
        folder=folder, files=SimpleNamespace(checkpoints=folder / "checkpoints"),
        program=SimpleNamespace(data=SimpleNamespace(train=batches)),
    )  # fmt: skip


def test_the_first_batch_that_differs_is_found_with_its_arrays(tmp_path):
    plain, other = run_on(Batches(), tmp_path), run_on(Batches(changed_at=7), tmp_path)
    found = compare_data(plain, other, most=100)
    assert (found.step, found.arrays, found.problem) == (7, ("weights",), None)
    assert "made: null → 7" in found.differences
    found = compare_data(plain, other, most=7)
    assert (found.step, found.looked_at) == (None, 7)
    assert compare_data(plain, run_on(Batches(), tmp_path), most=7).differences is None


def test_points_differ_beyond_the_tolerance_and_nan_equals_nan():
    nan = float("nan")
    points = [Point(1, 2.0, 2.0), Point(2, nan, nan), Point(3, 2.0, 2.1), Point(4, 2.0, nan)]
    assert first_difference(points) == points[2]
    assert first_difference(points, 0.06) is points[3] and first_difference(points[:2]) is None
    many = [Point(k, 0.0, 0.0) for k in range(101)]
    assert [p.step for p in thinned(many, 6)] == [0, 20, 40, 60, 80, 100]
