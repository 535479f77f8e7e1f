import numpy as np

from lmlab.training.interval import Interval

NAMES = ("loss", "skipped")


def dispatch(losses, weights, skipped=None):
    """The metrics of one dispatch of several steps."""
    skipped = [0.0] * len(losses) if skipped is None else skipped
    ones = np.ones(len(losses), np.float32)
    return np.stack([np.stack([losses, weights], -1), np.stack([skipped, ones], -1)], 1).astype(np.float32)


def test_a_record_divides_total_by_total_once():
    interval = Interval()
    interval.add(0, NAMES, dispatch([6.0, 1.0], [3.0, 1.0]))
    interval.add(2, NAMES, dispatch([2.0], [4.0]))
    assert interval.record() == {"loss": 9 / 8, "skipped": 0.0}
    assert interval.steps == 3


def test_steps_added_one_by_one_or_together_give_the_same_bits():
    rng = np.random.default_rng(0)
    losses, weights = rng.normal(size=17), rng.uniform(size=17)
    together, apart = Interval(), Interval()
    together.add(0, NAMES, dispatch(losses, weights))
    for step in range(17):
        apart.add(step, NAMES, dispatch(losses[step : step + 1], weights[step : step + 1]))
    assert together == apart


def test_scalars_of_a_single_step_count_as_one_step():
    interval = Interval()
    interval.add(4, NAMES, np.float32([[2, 4], [0, 1]]))
    assert interval.record()["loss"] == 0.5
    assert interval.steps == 1


def test_a_metric_of_which_nothing_was_measured_is_none():
    interval = Interval()
    interval.add(0, NAMES, dispatch([0.0], [0.0], [1.0]))
    assert interval.record() == {"loss": None, "skipped": 1.0}


def test_the_longest_row_of_skipped_updates_and_its_first_step_are_known():
    interval = Interval()
    interval.add(10, NAMES, dispatch([0] * 7, [1] * 7, [1, 0, 1, 1, 1, 0, 1]))
    assert (interval.longest_row, interval.longest_row_from, interval.skipped_in_a_row) == (3, 12, 1)


def test_a_row_of_skipped_updates_goes_on_over_the_border_of_a_record():
    interval = Interval()
    interval.add(0, NAMES, dispatch([0, 0], [1, 1], [0, 1]))
    interval.begin_anew()
    interval.add(2, NAMES, dispatch([0, 0], [1, 1], [1, 1]))
    assert (interval.longest_row, interval.longest_row_from) == (3, 1)
    assert interval.steps == 2
