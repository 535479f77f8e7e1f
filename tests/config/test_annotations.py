"""Which values fit which annotations, and what a component's signature may hold."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal, Optional, Union

import pytest

from lmlab.config import parameters
from lmlab.config.types import Mismatch, fit, spell, unsupported
from lmlab.contracts import FrozenDict, Model, Schedule, Spec
from lmlab.errors import ConfigError
from lmlab.ranges import Count, Fraction, NonNegative, Positive, ProperFraction, Within
from lmlab.registry import find, losses

gpt, cosine = Spec("model", "gpt"), Spec("schedule", "cosine")


@pytest.mark.parametrize(
    ("value", "annotation", "fitted"),
    [
        (3, int, 3),
        (3, float, 3.0),
        (3, float | int, 3),
        (3, Optional[float], 3.0),  # noqa: UP045 - both spellings are read
        (None, Union[int, None], None),  # noqa: UP007
        ("a", Literal["a", "b"], "a"),
        ((1, 2), tuple[float, ...], (1.0, 2.0)),
        ((1, "x"), tuple[float, str], (1.0, "x")),
        ((), list[int], ()),
        ((1, (2,)), Sequence[int | Sequence[int]], (1, (2,))),
        ({"a": (1,)}, Mapping[str, tuple[float, ...]], FrozenDict(a=(1.0,))),
        ({"a": 1}, dict, FrozenDict(a=1)),
        (gpt, Annotated[Spec, Model], gpt),
        (cosine, float | Schedule, cosine),
        (gpt, Spec, gpt),
        (5, Annotated[int, "layers"], 5),
        (5, Any, 5),
        (1, Count, 1),
        (0, NonNegative, 0.0),
        (0.0, ProperFraction, 0.0),
        (1, Fraction, 1.0),
        (-2, Annotated[int, Within(at_least=-3, at_most=-2)], -2),
        (None, Positive | None, None),
        ((1, 2), tuple[Count, ...], (1, 2)),
        (cosine, NonNegative | Schedule, cosine),
    ],
)
def test_values_that_fit(value, annotation, fitted):
    found = fit(value, annotation)
    assert found == fitted and type(found) is type(fitted)


@pytest.mark.parametrize(
    ("value", "annotation"),
    [
        (True, int),
        (True, float),
        (1, bool),
        (1.0, int),
        ("1", int),
        (1, str),
        (None, int),
        (1, Literal[True]),
        (10**400, float),
        (0, Count),
        (True, Count),
        (-1e-300, NonNegative),
        (0.0, Positive),
        (1.0, ProperFraction),
        (1.5, Fraction),
        (float("nan"), NonNegative),
        (float("inf"), Positive),
        (-4, Annotated[int, Within(at_least=-3, at_most=-2)]),
        (-1, Annotated[int, Within(at_least=-3, at_most=-2)]),
        (0, Positive | None),
        ((1, 0), tuple[Count, ...]),
        (-1.0, NonNegative | Schedule),
        ("ab", tuple[str, ...]),
        ((1, 2, 3), tuple[int, int]),
        (cosine, Annotated[Spec, Model]),
        ("gpt", Annotated[Spec, Model]),
        (gpt, float | Schedule),
        (gpt, int),
    ],
)
def test_values_that_do_not_fit(value, annotation):
    with pytest.raises(Mismatch):
        fit(value, annotation)


def test_annotations_are_spelled_as_people_say_them():
    assert spell(float | Schedule | None) == "float | schedule | None"
    assert spell(tuple[Annotated[Spec, Model], ...]) == "sequence of model"
    assert spell(dict[str, int]) == "dict of int"
    assert spell(Count | None) == "int >= 1 | None"
    assert spell(ProperFraction) == "float >= 0 and < 1"


@pytest.mark.parametrize("annotation", [complex, list[bytes], dict[int, str], set[int], int | bytes])
def test_annotations_that_no_configuration_can_hold(annotation):
    assert unsupported(annotation)


def test_a_component_class_stands_for_itself_alone(own_catalogue):
    @losses.register("only_me")
    @dataclass(frozen=True)
    class OnlyMe:
        """Alone."""

    assert fit(Spec("loss", "only_me"), OnlyMe)
    with pytest.raises(Mismatch):
        fit(Spec("loss", "another"), Annotated[Spec, OnlyMe])


def test_an_annotation_that_cannot_be_resolved_is_named_at_its_component(own_catalogue):
    @losses.register("lost")
    def lost(rate: Nowhere) -> None:
        """Lost."""

    with pytest.raises(
        ConfigError, match=r"the loss 'lost' .*test_annotations.py:\d+.* the annotation of 'rate', 'Nowhere'"
    ):
        parameters(find("lost"))


def test_a_parameter_without_an_annotation_or_with_an_open_one_is_refused(own_catalogue):
    @losses.register("bare")
    def bare(rate) -> None:
        """Bare."""

    @losses.register("raw")
    def raw(rate: bytes) -> None:
        """Raw."""

    with pytest.raises(ConfigError, match="'rate' has no annotation"):
        parameters(find("bare"))
    with pytest.raises(ConfigError, match="'rate' holds bytes, which a configuration cannot"):
        parameters(find("raw"))


def test_inherited_fields_are_resolved_where_they_are_written(own_catalogue, tmp_path):
    from lmlab.registry import load_plugin

    (tmp_path / "base.py").write_text(
        "from __future__ import annotations\nfrom dataclasses import dataclass\nHere = float\n"
        "@dataclass(frozen=True)\nclass Base:\n    rate: Here = 1\n"
    )
    base = load_plugin(str(tmp_path / "base.py"))

    @losses.register("derived")
    @dataclass(frozen=True)
    class Derived(base.Base):
        """Derived."""

        more: int = 2

    assert {name: p.annotation for name, p in parameters(find("derived")).items()} == {"rate": float, "more": int}
