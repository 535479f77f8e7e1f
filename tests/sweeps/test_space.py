"""Spaces: what their axes come to, counted and written out by hand, and what cannot be combined."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from lmlab.config import resolve
from lmlab.errors import ConfigError
from lmlab.sweeps.space import Space, settings_of

AXES = {"a.x": ("1", "2", "3"), "a.y": ("@u", "@v"), "a.z": ("'p'", "'q'")}


def test_a_product_has_every_combination() -> None:
    found = settings_of(Space(axes=AXES))
    assert [tuple(one.values()) for one in found] == list(itertools.product(*AXES.values()))


def test_zipped_axes_go_together() -> None:
    axes = {"a.x": ("1", "2"), "a.y": ("3", "4")}
    assert settings_of(Space(axes=axes, combine="zip")) == [{"a.x": "1", "a.y": "3"}, {"a.x": "2", "a.y": "4"}]
    with pytest.raises(ConfigError, match="have different numbers"):
        settings_of(Space(axes=AXES, combine="zip"))


def test_an_ablation_changes_one_thing_at_a_time() -> None:
    baseline, *others = settings_of(Space(axes=AXES, combine="ablate"))
    assert tuple(baseline.values()) == ("1", "@u", "'p'")
    assert len(others) == 2 + 1 + 1
    assert all(sum(one[key] != baseline[key] for key in AXES) == 1 for one in others)


def test_random_settings_lie_in_their_ranges_and_are_the_same_each_time() -> None:
    axes = {"a.rate": ("'log_uniform'", "0.0001", "0.01"), "a.n": ("'int_uniform'", "2", "5"), "a.y": ("@u", "@v")}
    space = Space(axes=axes, combine="random", draws=400)
    found = settings_of(space)
    assert found == settings_of(space) != settings_of(Space(axes=axes, combine="random", draws=400, draw_seed=1))
    logs = np.log10([float(one["a.rate"]) for one in found])
    assert logs.min() >= -4 and logs.max() <= -2
    assert abs(logs.mean() + 3) < 4 * (2 / 12**0.5) / len(logs) ** 0.5
    assert {one["a.n"] for one in found} == {"2", "3", "4", "5"} and {one["a.y"] for one in found} == {"@u", "@v"}


def test_a_condition_leaves_an_axis_out() -> None:
    found = settings_of(Space(axes=AXES, when={"a.z": {"a.y": ("@u",), "a.x": ("1", "2")}}))
    assert sum("a.z" in one for one in found) == 2 * 1 * 2
    assert len(found) == 4 + (6 - 2)  # where it is left out, its two values are one setting


@pytest.mark.parametrize(
    ("space", "message"),
    [
        (Space(axes={"experiment.seed": ("1",)}), "every setting is run with each seed of sweep.seeds"),
        (Space(axes={"a.x": ()}), "the axis 'a.x' has no values"),
        (Space(axes={"a.x": ("1", "1")}), "has the value 1 twice"),
        (Space(axes={"a.x": ("'uniform'", "0", "1")}), "set combine = 'random'"),
        (Space(axes={"a.x": ("'uniform'", "1", "0")}, combine="random"), "draws from no range"),
        (Space(axes={"a.x": ("'log_uniform'", "0", "1")}, combine="random"), "draws from no range"),
        (Space(axes={"a.x": ("'int_uniform'", "0.5", "1")}, combine="random"), "draws from no range"),
        (Space(axes=AXES, when={"a.z": {"a.w": ("1",)}}), "speaks of 'a.w', which is no axis"),
    ],
)
def test_what_cannot_be_combined_is_one_line(space: Space, message: str) -> None:
    with pytest.raises(ConfigError, match=message) as found:
        settings_of(space)
    assert "\n" not in str(found.value)


def test_values_are_kept_as_gin_writes_them() -> None:
    text = "sweep.axes = {'a.m': [@s/gpt, %RATE], 'a.n': [1e-3, 'word', None, [1, {'k': @lstm}]]}"
    spec = resolve([], [text], root="sweep").spec
    assert spec.kwargs["axes"] == {
        "a.m": ("@s/gpt", "%RATE"),
        "a.n": ("0.001", "'word'", "None", "[1, {'k': @lstm}]"),
    }
