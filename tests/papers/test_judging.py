"""Verdicts on numbers made by hand, and what fits into a budget."""

import math
from dataclasses import replace

import numpy as np
import pytest
from scipy import stats
from small_paper import write_paper

from lmlab.errors import ConfigError, RunFolderError
from lmlab.papers.budget import minutes_of, seeds_of, select
from lmlab.papers.claims import Band, Early, read_paper
from lmlab.papers.judging import judged
from lmlab.papers.results import SeedResult, now, read_results, write_results


@pytest.fixture(scope="module")
def paper(tmp_path_factory):
    return read_paper(write_paper(tmp_path_factory.mktemp("judging")), "tiny")


def results(*values, share="1", losses=None):
    losses = losses or [None] * len(values)
    return [
        SeedResult(seed, "x", {share: v}, now(), loss)
        for seed, (v, loss) in enumerate(zip(values, losses, strict=True))
    ]


@pytest.mark.parametrize(
    ("values", "kind"),
    [((0.1,), "met"), ((3.0,), "met"), ((0.0999,), "failed"), ((2.9, 3.0, 3.2), "failed"), ((2.5, 3.0, 3.2), "met")],
)
def test_the_mean_is_judged_with_the_ends_of_the_band_in_it(paper, values, kind):
    assert judged(paper.claims[0], results(*values)).kind == kind


def test_the_interval_is_students(paper):
    values = [2.1, 2.4, 2.2, 2.9]
    verdict = judged(paper.claims[0], results(*values))
    low, high = stats.t.interval(0.95, 3, loc=np.mean(values), scale=stats.sem(values))
    assert verdict.interval == pytest.approx((low, high)) and verdict.value == pytest.approx(np.mean(values))
    assert verdict.seeds == 4 and judged(paper.claims[0], results(2.1)).interval is None


@pytest.mark.parametrize(
    ("over", "value"), [("median", 0.9), ("worst", 9.0), ("lowest_loss", 0.5), ("mean", pytest.approx(10.4 / 3))]
)
def test_what_is_judged_of_several_seeds(paper, over, value):
    claim = replace(paper.claims[0], over=over)
    assert judged(claim, results(0.9, 9.0, 0.5, losses=[1.0, 3.0, 0.2])).value == value


def test_the_worst_may_be_below_the_band(paper):
    claim = replace(paper.claims[0], over="worst", band=Band(0.5, math.inf))
    assert judged(claim, results(0.4, 9.0)).value == 0.4


def test_an_early_look_is_judged_by_its_own_band_and_the_end_comes_first(paper):
    claim = replace(paper.claims[0], early=(Early(0.1, Band(5, 6)), Early(0.5, Band(0, 1))))
    assert judged(claim, results(0.5, share="0.5")).kind == "early: on course"
    assert judged(claim, results(5.5, share="0.1")).share == 0.1
    assert judged(claim, results(2.0, share="0.5")).kind == "early: off"
    assert judged(claim, [*results(2.0, share="0.5"), *results(2.0)]).kind == "met"
    assert judged(claim, results(2.0, share="0.3")).kind == judged(claim, []).kind == "not run"
    assert judged(claim, results(2.0, share="0.5")).bad and not judged(claim, []).bad


def test_a_changed_result_is_refused_and_stays(paper):
    claim = paper.claims[0]
    write_results(paper, claim, results(2.0, 2.5))
    assert read_results(paper, claim) == tuple(read_results(paper, claim)) and len(read_results(paper, claim)) == 2
    path = paper.folder / "results" / "loss.json"
    good = path.read_text()
    for bad in (good.replace('"1": 2.5', '"1": 2.4'), good[:-9], "[]", "{}", good.replace('"tiny"', '"other"')):
        path.write_text(bad)
        with pytest.raises(RunFolderError, match=r"loss\.json .*lmlab reproduce tiny --claim loss"):
            read_results(paper, claim)
        assert path.read_text() == bad
    path.unlink()


# --- Budgets: a seed of the run takes 4 minutes on two cores, 1 on an H100; the check 0.1


def chosen(paper, budget, missing=None, trained=None, device="two_cores"):
    wanted = missing or {"loss": (0, 1), "gain": (0, 1), "seven": (None,)}
    return select(paper, paper.claims, lambda claim: wanted.get(claim.id, ()), trained or {}, device, budget)


def test_everything_fits_into_the_full_budget_and_a_run_of_two_claims_costs_once(paper):
    found = chosen(paper, math.inf)
    assert found.parts == {("tiny", 0): 1.0, ("tiny", 1): 1.0} and found.checks == ["seven"] and not found.too_long
    assert found.minutes == pytest.approx(8.1)


def test_what_is_too_long_is_looked_at_early_with_one_seed_or_left_with_its_cost(paper):
    found = chosen(paper, 5)
    assert found.parts == {("tiny", 0): 0.5} and found.checks == ["seven"]
    assert found.too_long == {"gain": pytest.approx(6.0)}  # what is left of 8 minutes after the early look
    found = chosen(paper, 1)
    assert found.parts == {} and found.too_long == {"loss": 8.0, "gain": 8.0} and found.checks == ["seven"]
    assert chosen(paper, 0).too_long["seven"] == 0.1


def test_what_was_trained_before_is_not_paid_again(paper):
    found = chosen(paper, 4.5, trained={("tiny", 0): 0.9, ("tiny", 1): 0.5})
    assert found.parts == {("tiny", 0): 1.0, ("tiny", 1): 1.0} and found.minutes == pytest.approx(0.4 + 2 + 0.1)
    assert chosen(paper, 5, {"gain": (1,)}).parts == {("tiny", 1): 1.0}
    assert chosen(paper, 2.1, device="h100").parts == {("tiny", 0): 1.0, ("tiny", 1): 1.0}


def test_times_and_seeds(paper):
    assert [minutes_of(text) for text in ("90s", "10m", "2h", "1.5h", "full")] == [1.5, 10, 120, 90, math.inf]
    for text in ("10", "m", "-3m", "10 days", ""):
        with pytest.raises(ConfigError, match="--budget"):
            minutes_of(text)
    run = replace(paper.runs["tiny"], seeds=(7, 1))
    assert [seeds_of(run, count) for count in (None, 1, 4)] == [(7, 1), (7,), (7, 1, 0, 2)]
