"""Cases of a parametrised test that show a law once more: for `pytest -m long`, so that the suite stays short."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import pytest


def later(cases: Iterable[Any]) -> list[Any]:
    """The cases, marked `long`; a tuple is the values of several arguments."""
    return [pytest.param(*(case if isinstance(case, tuple) else (case,)), marks=pytest.mark.long) for case in cases]
