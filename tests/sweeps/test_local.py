"""Which processors the workers of a sweep compute on."""

import os

import pytest

from lmlab.sweeps.launchers import local


@pytest.mark.parametrize(
    ("processors", "workers", "expected"),
    [
        ({0, 1}, 2, [(0,), (1,)]),
        ({3, 5, 7, 11, 13}, 2, [(3, 5), (7, 11)]),
        ({0, 1}, 1, [()]),
        ({0, 1}, 3, [(), (), ()]),
    ],
)
def test_workers_have_processors_of_their_own_as_far_as_there_are_any(monkeypatch, processors, workers, expected):
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: processors)
    assert local.shares(workers) == expected
