"""Intervals and tests against scipy, against sums done by hand, and against what they promise."""

import itertools
import math

import numpy as np
import pytest
from scipy import stats

from lmlab.sweeps.statistics import Cell, Interval, bootstrap, difference, holm, main_effect, mean

NUMBERS = [3.1, 2.7, 3.9, 3.3, 2.2, 3.0, 2.9]
OTHERS = [2.9, 2.8, 3.1, 3.0, 2.0, 2.7, 2.1]


def by_seed(values):
    return dict(enumerate(values))


def test_the_mean_of_1_2_3_is_2_with_the_interval_of_the_tables():
    found = mean([1.0, 2.0, 3.0])
    assert found.value == 2 and found.count == 3
    # t(0.975, 2) = 4.3027, standard error 1 / sqrt(3)
    assert found.interval == pytest.approx((2 - 4.302653 / math.sqrt(3), 2 + 4.302653 / math.sqrt(3)), abs=1e-5)
    assert found.margin == pytest.approx(2.484138, abs=1e-5)


def test_a_mean_has_the_interval_of_scipy():
    expected = stats.ttest_1samp(NUMBERS, 0).confidence_interval(0.95)
    assert mean(NUMBERS).interval == pytest.approx((expected.low, expected.high), rel=1e-12)


@pytest.mark.parametrize("values", [[1.5], [1.5, 1.5], [0.0, 0.0, 0.0], [0.3, 0.1 + 0.2, 0.3]])
def test_one_number_and_numbers_without_spread_have_no_interval(values):
    found = mean(values)
    assert found.interval is None and found.margin is None and found.count == len(values)


def test_a_paired_difference_is_that_of_scipy():
    found = difference(by_seed(NUMBERS), by_seed(OTHERS))
    expected = stats.ttest_rel(NUMBERS, OTHERS)
    assert found.p == pytest.approx(expected.pvalue, rel=1e-12)
    low, high = expected.confidence_interval(0.95)
    assert found.mean.interval == pytest.approx((low, high), rel=1e-12)
    assert found.mean.value == pytest.approx(np.mean(NUMBERS) - np.mean(OTHERS))


def test_seeds_are_paired_by_their_number_and_not_by_their_place():
    found = difference({7: 5.0, 3: 2.0, 1: 9.0}, {3: 1.0, 7: 3.0, 2: 100.0})
    assert found.seeds == (3, 7) and found.differences == (1.0, 2.0)
    assert difference({1: 1.0}, {2: 1.0}) is None


def test_the_effect_of_differences_1_2_3_is_that_done_by_hand():
    # mean 2, standard deviation 1; J(2) = gamma(1) / (sqrt(1) gamma(1/2)) = 1 / sqrt(pi)
    found = difference(by_seed([1.0, 2.0, 3.0]), by_seed([0.0, 0.0, 0.0]))
    assert found.effect == pytest.approx(2 / math.sqrt(math.pi))


@pytest.mark.parametrize(
    ("a", "b", "p"),
    [
        ([1.0], [2.0], None),  # one seed tells nothing
        ([1.0], [1.0], None),
        ([1.0, 2.0, 4.0], [1.0, 2.0, 4.0], 1.0),  # two names for one value
        ([1.5, 2.5, 4.5], [1.0, 2.0, 4.0], None),  # the same difference each time: no spread to judge by
        ([0.1 + 0.2, 1.3], [0.3 - 0.1, 1.2], None),  # the same but for rounding
    ],
)
def test_where_there_is_no_spread_nothing_is_made_up(a, b, p):
    found = difference(by_seed(a), by_seed(b))
    assert found.p == p
    assert (found.mean.interval, found.bootstrap, found.effect) == (None, None, None)
    assert found.mean.value == pytest.approx(np.mean(a) - np.mean(b)) and found.mean.count == len(a)


def test_two_seeds_have_a_test_and_an_interval_but_neither_effect_nor_bootstrap():
    found = difference(by_seed([1.0, 2.0]), by_seed([0.5, 1.0]))
    assert found.p == pytest.approx(stats.ttest_rel([1.0, 2.0], [0.5, 1.0]).pvalue)
    assert found.mean.interval is not None and found.effect is None and found.bootstrap is None


def test_the_bootstrap_is_bca_by_its_definition():
    """Efron (1987), eq. 6.6, in plain NumPy, over other resamples: the ends agree within the error of resampling."""
    values = np.asarray(NUMBERS) - np.asarray(OTHERS)
    n = len(values)
    means = np.sort(values[np.random.default_rng(11).integers(0, n, (200_000, n))].mean(1))
    bias = stats.norm.ppf(((means < values.mean()).sum() + (means <= values.mean()).sum()) / 2 / len(means))
    left_out = (values.sum() - values) / (n - 1)
    pull = left_out.mean() - left_out
    acceleration = (pull**3).sum() / (6 * (pull**2).sum() ** 1.5)
    z = bias + stats.norm.ppf([0.025, 0.975])
    expected = np.quantile(means, stats.norm.cdf(bias + z / (1 - acceleration * z)))
    assert bootstrap(values) == pytest.approx(tuple(expected), abs=0.02 * values.std())


def test_the_bootstrap_is_the_same_each_time_and_needs_five_seeds():
    values = np.asarray(NUMBERS)
    assert bootstrap(values) == bootstrap(values.copy())
    assert bootstrap(values[:4]) is None and isinstance(bootstrap(values[:5]), Interval)


def test_holm_of_three_done_by_hand():
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([0.5, None, 0.01]) == [0.5, None, 0.02]
    assert holm([0.6, 0.7]) == [1.0, 1.0] and holm([]) == []


def test_holm_rejects_exactly_where_its_steps_go_down():
    """A direct loop: from the smallest p on, reject while p <= level / (how many are left)."""
    rng = np.random.default_rng(3)
    for count in (1, 2, 5, 13):
        p_values = rng.uniform(size=count) ** 3
        for level in (0.01, 0.05, 0.2):
            rejected = set()
            for rank, index in enumerate(np.argsort(p_values)):
                if p_values[index] > level / (count - rank):
                    break
                rejected.add(int(index))
            assert {index for index, p in enumerate(holm(list(p_values))) if p <= level} == rejected


def cells(value, left_out=()):
    for rate, layers, seed in itertools.product(("0.1", "0.2"), ("2", "3", "4"), (0, 1, 2)):
        if (rate, layers, seed) not in left_out:
            yield Cell({"sgd.rate": rate, "gpt.layers": layers}, seed, value(float(rate), int(layers), seed))


def test_a_main_effect_is_the_mean_over_everything_else():
    effect = main_effect("sgd.rate", list(cells(lambda rate, layers, seed: 10 * rate + layers + 0.25 * seed)))
    assert effect.contexts == 3 and [level.value for level in effect.levels] == ["0.1", "0.2"]
    assert [level.mean.value for level in effect.levels] == pytest.approx([4.25, 5.25])
    # over seeds, each a mean over three depths: 4.0, 4.25, 4.5
    assert effect.levels[0].mean == mean([4.0, 4.25, 4.5]) and effect.levels[0].mean.count == 3


def test_a_main_effect_leaves_out_what_was_not_measured_on_all_sides():
    """A failed trial of a good setting must not make its value look bad."""
    complete = list(
        cells(lambda rate, layers, seed: rate + 100 * layers, left_out={("0.1", "2", seed) for seed in (0, 1, 2)})
    )
    effect = main_effect("sgd.rate", complete)
    assert effect.contexts == 2
    assert [level.mean.value for level in effect.levels] == pytest.approx([350.1, 350.2])


def test_a_main_effect_of_settings_drawn_at_random_says_that_nothing_is_held_equal():
    drawn = [Cell({"a": str(k % 2), "b": str(k)}, 0, float(k)) for k in range(6)]
    effect = main_effect("a", drawn)
    assert effect.contexts == 0 and [level.mean.value for level in effect.levels] == [2.0, 3.0]
    assert main_effect("a", drawn[::2]) is None and main_effect("c", drawn) is None


@pytest.mark.long
def test_the_intervals_hold_what_they_promise():
    """Of 4,000 samples, the t intervals hold the truth 95 times in 100; BCa of few seeds holds it less often."""
    rng = np.random.default_rng(5)
    tries, error = 4000, 3 * math.sqrt(0.95 * 0.05 / 4000)
    for n in (2, 3, 8):
        held = [mean(sample).interval for sample in rng.normal(0.3, 2.0, (tries, n))]
        assert abs(np.mean([low <= 0.3 <= high for low, high in held]) - 0.95) < error
    for n, least in ((5, 0.80), (8, 0.86), (20, 0.91)):
        held = [bootstrap(sample) for sample in rng.normal(0.3, 2.0, (400, n))]
        share = np.mean([low <= 0.3 <= high for low, high in held])
        print(f"BCa of {n} seeds holds the mean in {share:.1%} of 400 samples")
        assert least < share < 0.98


@pytest.mark.long
def test_holm_errs_in_one_family_of_twenty_where_nothing_differs():
    """Ten variants that all equal the baseline: a smallest corrected p below 0.05 comes up at most in 5 % of sweeps."""
    rng = np.random.default_rng(6)
    tries, wrong = 500, 0
    for _ in range(tries):
        baseline, *others = rng.normal(size=(11, 8))
        found = [difference(by_seed(other), by_seed(baseline)) for other in others]
        wrong += min(holm([one.p for one in found])) < 0.05
    assert wrong / tries < 0.05 + 3 * math.sqrt(0.05 * 0.95 / tries)
