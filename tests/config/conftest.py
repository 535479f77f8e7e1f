"""Resolving configurations of toy components, in a folder of their own."""

from collections.abc import Callable
from pathlib import Path

import pytest

from lmlab.config import Resolved, resolve

TOYS = str(Path(__file__).parent / "toys.py")

Resolve = Callable[..., Resolved]


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """An empty working directory."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def toys(own_catalogue, folder) -> Resolve:
    """`toys(text, *overrides)` resolves gin text with a model and a length; `toys(None, ...)` only the overrides."""

    def resolve_toys(text: str | None = "", *overrides: str) -> Resolved:
        if text is None:
            return resolve([], overrides, [TOYS], root="toy_root")
        (folder / "x.gin").write_text(f"toy_root.model = @toy_gpt\ntoy_root.steps = 3\n{text}", encoding="utf-8")
        return resolve(["x.gin"], overrides, [TOYS], root="toy_root")

    return resolve_toys
