"""The files of experiments/finetuning: both ways of beginning fit together, and the table's intervals are Student's."""

import importlib
import sys
from pathlib import Path

import pytest
import scipy.stats

from lmlab.config import diff, resolve
from lmlab.training.fit import check_experiment

ROOT = Path(__file__).parent.parent.parent
FOLDER = ROOT / "experiments" / "finetuning"


@pytest.fixture
def table(monkeypatch):
    monkeypatch.syspath_prepend(str(FOLDER))
    yield importlib.import_module("table")
    del sys.modules["table"]


def test_tuned_and_from_scratch_differ_in_where_they_begin_alone(table, monkeypatch):
    monkeypatch.chdir(ROOT)
    for task in table.TASKS:
        ways = {
            way: resolve([str(FOLDER / name) for name in (f"{task}.gin", *files)]) for way, files in table.WAYS.items()
        }
        for resolved in ways.values():
            check_experiment(resolved.build())
        assert [path for path, *_ in diff(ways["minilm"].spec, ways["scratch"].spec)] == ["init_from"]
        evaluator, metric = table.TASKS[task]
        evaluators = ways["minilm"].spec.kwargs["evaluators"]
        assert [one.name for one in evaluators] == [evaluator]
        assert evaluators[0].kwargs["split"] == metric.split("/")[0] == "test"


@pytest.mark.parametrize("values", [(0.91, 0.87), (0.91, 0.87, 0.9)])
def test_the_interval_is_students(table, values):
    low, high = scipy.stats.t.interval(
        0.95, len(values) - 1, loc=table.Row(values, ()).mean, scale=scipy.stats.sem(values)
    )
    assert table.Row(values, ()).interval == pytest.approx((high - low) / 2, rel=1e-3)


def test_a_single_value_has_no_interval(table):
    assert table.Row((0.5,), ()).interval != table.Row((0.5,), ()).interval
