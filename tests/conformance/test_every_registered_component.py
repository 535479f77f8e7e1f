"""Every registered component against every law of its kind: a new component is tested by being registered."""

import pytest

from lmlab.registry import CATALOGUE, scan_installed_plugins
from lmlab.testing import checks
from tests.conformance.conftest import HELD_TO_ALL

scan_installed_plugins()
CHECKS = [check for entry in CATALOGUE.entries().values() for check in checks(entry.kind, entry.name)]


@pytest.mark.parametrize("check", CHECKS, ids=str)
def test_component(check, tmp_path):
    check(tmp_path)


def test_those_that_are_held_to_all_laws_at_once_are_registered():
    assert {name for entry in CATALOGUE.entries().values() if (name := entry.name) in HELD_TO_ALL} == HELD_TO_ALL
