"""Comparing trees of arrays, so that a failure names the array."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import jax
import numpy as np


def assert_close(found: Any, expected: Any, *, rtol: float = 2e-5, atol: float = 2e-5, what: str = "") -> None:
    """AssertionError unless two trees have the same structure and nearly the same numbers; says which array differs."""
    for name, one, other in _pairs(found, expected, what):
        np.testing.assert_allclose(one, other, rtol=rtol, atol=atol, err_msg=name)


def assert_same(found: Any, expected: Any, *, what: str = "") -> None:
    """As `assert_close`, to the bit."""
    for name, one, other in _pairs(found, expected, what):
        assert one.dtype == other.dtype, f"{name} is {one.dtype}, not {other.dtype}"
        assert one.tobytes() == other.tobytes(), f"{name} differs by up to {np.abs(one - other).max()}"


def _pairs(found: Any, expected: Any, what: str) -> Iterator[tuple[str, np.ndarray, np.ndarray]]:
    """The arrays of two trees side by side, with their names."""
    leaves, structure = jax.tree_util.tree_flatten_with_path(found)
    others = jax.tree.leaves(expected)
    same = jax.tree.structure(found) == jax.tree.structure(expected)  # type: ignore[operator]
    assert same, f"{what}: {structure} is not {jax.tree.structure(expected)}"
    for (path, one), other in zip(leaves, others, strict=True):
        name = jax.tree_util.keystr(path, simple=True, separator="/")
        yield f"{what} {name}".strip(), np.asarray(one), np.asarray(other)
