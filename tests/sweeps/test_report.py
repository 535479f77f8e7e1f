"""What a report says of a sweep: order, differences, what failed, and a planted effect."""

import numpy as np
import pytest
from scipy import stats

from lmlab.errors import ConfigError
from lmlab.sweeps.direction import better
from lmlab.sweeps.report import labels, make_report
from lmlab.sweeps.results import read_results
from tests.sweeps.sweep_folder import make_sweep, trial_id

KEY = "autoregressive.label_smoothing"
SEEDS = tuple(range(8))


def planted(folder, **options):
    """Smoothing costs 0.05 nats beside a spread over seeds of 0.2 that all variants share; 'twin' costs nothing."""
    rng = np.random.default_rng(7)
    seed_luck, noise = rng.normal(0, 0.2, 8), {text: rng.normal(0, 0.01, 8) for text in ("0.0", "0.5", "'twin'")}

    def value(settings, seed):
        text = settings[KEY]
        return 3.0 + seed_luck[seed] + noise[text][seed] + 0.05 * (text == "0.5")

    variants = [{KEY: text} for text in ("0.0", "0.5", "'twin'")]
    make_sweep(folder, variants, SEEDS, value, **{"baseline": variants[0], **options})
    return value


def by_label(report):
    return {variant.label: variant for variant in report.variants}


def test_a_planted_effect_is_found_and_a_planted_non_effect_is_not(tmp_path):
    value = planted(tmp_path)
    report = make_report(read_results(tmp_path))
    found = by_label(report)
    worse, twin = found["label_smoothing=0.5"].difference, found["label_smoothing='twin'"].difference
    assert worse.holm < 0.01 and worse.mean.interval.low > 0 and worse.bootstrap.low > 0
    assert 0.03 < worse.mean.value < 0.07
    assert twin.holm > 0.05 and twin.mean.interval.low < 0 < twin.mean.interval.high
    ends = {text: [value({KEY: text}, seed) for seed in SEEDS] for text in ("0.0", "0.5", "'twin'")}
    raw = [stats.ttest_rel(ends[text], ends["0.0"]).pvalue for text in ("0.5", "'twin'")]
    assert worse.holm == pytest.approx(2 * min(raw)) and twin.holm == pytest.approx(max(raw))
    # the unpaired test, which does not see that the seeds are shared, would have missed it
    assert stats.ttest_ind(ends["0.5"], ends["0.0"]).pvalue > 0.05


def test_the_best_comes_first_in_the_metric_s_own_direction(tmp_path):
    rates = [{"sgd.rate": text} for text in ("0.3", "0.1", "0.2")]
    make_sweep(tmp_path, rates, (0,), lambda settings, seed: float(settings["sgd.rate"]))
    results = read_results(tmp_path)
    assert [v.settings["sgd.rate"] for v in make_report(results).variants] == ["0.1", "0.2", "0.3"]
    report = make_report(results, direction="higher")
    assert [v.settings["sgd.rate"] for v in report.variants] == ["0.3", "0.2", "0.1"] and report.better == "higher"


@pytest.mark.parametrize(
    ("metric", "direction"),
    [
        ("valid/nats_per_token", "lower"), ("valid/bits_per_byte", "lower"), ("valid/ppl/word", "lower"),
        ("train/loss", "lower"), ("test/word_error_rate", "lower"), ("test/iw10_ppl/token", "lower"),
        ("valid/accuracy", "higher"), ("test/bleu/sacrebleu-13a", "higher"), ("valid/f1/macro", "higher"),
        ("valid/exact_match/squad-1.1", "higher"), ("valid/rougeL-f1/rouge-score", "higher"),
    ],
)  # fmt: skip
def test_the_direction_is_known_by_the_name(metric, direction):
    assert better(metric) == direction
    assert better(metric, "higher") == "higher"


@pytest.mark.parametrize(
    "metric", ["valid/kl_nats_per_text", "valid/tokens", "train/entropy_nats", "train/learning_rate"]
)
def test_a_direction_that_nobody_knows_must_be_said(metric):
    with pytest.raises(ConfigError, match="--better"):
        better(metric)


def test_what_failed_is_left_out_of_means_and_said(tmp_path):
    failed = {trial_id({KEY: "0.5"}, seed): "nan" for seed in (2, 5)} | {trial_id({KEY: "'twin'"}, 0): "pending"}
    planted(tmp_path, statuses=failed)
    report = make_report(read_results(tmp_path))
    variant = by_label(report)["label_smoothing=0.5"]
    assert sorted(variant.values) == [0, 1, 3, 4, 6, 7] == list(variant.difference.seeds)
    assert variant.unfinished == {"nan": 2} and variant.mean.count == 6
    assert any("2 of 24 trials" in note for note in report.notes)
    assert by_label(report)["label_smoothing='twin'"].unfinished == {"pending": 1}


def test_a_sweep_without_any_result_is_a_report_without_numbers(tmp_path):
    planted(
        tmp_path, statuses={trial_id({KEY: text}, s): "pending" for text in ("0.0", "0.5", "'twin'") for s in SEEDS}
    )
    report = make_report(read_results(tmp_path))
    assert all(variant.mean is None and variant.difference is None for variant in report.variants)
    assert report.effects == () and any("no result yet" in note for note in report.notes)


def test_an_infinite_result_is_no_result(tmp_path):
    make_sweep(tmp_path, [{"a.b": "1"}], (0, 1), lambda settings, seed: float("inf") if seed else 2.0)
    report = make_report(read_results(tmp_path))
    assert report.variants[0].values == {0: 2.0} and any("without a finite" in note for note in report.notes)


def test_the_baseline_may_be_chosen_as_gin_would_read_it(tmp_path):
    rates = [{"sgd.rate": text} for text in ("0.001", "0.002")]
    make_sweep(tmp_path, rates, (0, 1, 2), lambda settings, seed: float(settings["sgd.rate"]) * (1 + seed**2))
    results = read_results(tmp_path)
    assert make_report(results).baseline is None
    report = make_report(results, baseline={"sgd.rate": "1e-3"})
    assert report.baseline.settings == rates[0]
    with pytest.raises(ConfigError, match=r"no variant has sgd\.rate = 7"):
        make_report(results, baseline={"sgd.rate": "7"})
    with pytest.raises(ConfigError, match=r"'sgd\.speed' is no axis"):
        make_report(results, baseline={"sgd.speed": "7"})


def test_a_baseline_that_several_variants_have_is_refused_with_their_names(tmp_path):
    grid = [{"a.x": x, "b.y": y} for x in ("1", "2") for y in ("3", "4")]
    make_sweep(tmp_path, grid, (0,), lambda settings, seed: 1.0)
    with pytest.raises(ConfigError, match=r"(?s)2 variants have a\.x = 1.*x=1, y=3\n.*x=1, y=4"):
        make_report(read_results(tmp_path), baseline={"a.x": "1"})


def test_changes_are_those_of_the_resolved_configurations(tmp_path):
    planted(tmp_path)
    report = make_report(read_results(tmp_path))
    assert by_label(report)["label_smoothing=0.5"].changes == ((KEY, "'0.0'", "'0.5'"),)
    for seed in SEEDS:  # one that was never resolved: what it was to be set to
        (tmp_path / "trials" / trial_id({KEY: "0.5"}, seed) / "config.json").unlink()
    report = make_report(read_results(tmp_path))
    assert by_label(report)["label_smoothing=0.5"].changes == ((KEY, "0.0", "0.5"),)


def test_a_metric_that_nobody_measured_is_refused_with_those_there_are(tmp_path):
    planted(tmp_path)
    with pytest.raises(ConfigError, match=r"'valid/bleu'.*train/loss, .*valid/nats_per_token"):
        make_report(read_results(tmp_path), "valid/bleu")


def test_labels_name_what_differs_in_the_shortest_way():
    assert labels([{"a.rate": "1", "b.size": "2"}, {"a.rate": "3", "b.size": "2"}]) == ["rate=1", "rate=3"]
    assert labels([{"a.rate": "1", "b.rate": "2"}, {"a.rate": "2", "b.rate": "1"}]) == [
        "a.rate=1, b.rate=2", "a.rate=2, b.rate=1",
    ]  # fmt: skip
    assert labels([{"m.model": "@gpt", "gpt.layers": "2"}, {"m.model": "@lstm"}]) == [
        "model=@gpt, layers=2",
        "model=@lstm",
    ]
    assert labels([{}]) == ["(as the file has it)"]
