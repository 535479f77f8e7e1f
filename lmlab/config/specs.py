"""A Spec as JSON, its hash, its identity, and the differences between two of them."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from lmlab.contracts import FrozenDict, Spec, Value
from lmlab.errors import ConfigError
from lmlab.registry import REGISTRIES


class _Absent:
    def __repr__(self) -> str:
        return "(not there)"


ABSENT = _Absent()
"""Stands in `diff` for a value that only the other side has."""


def spec_to_json(value: Value) -> Any:
    """JSON for a Spec or any value in one; `spec_from_json` gives back an equal value.

    A Spec becomes `{"kind", "name", "kwargs"}`, a mapping `{"mapping": {...}}`, a sequence a list, an infinity
    `{"float": "inf"}`; None, bool, int, float and str stay.
    """
    match value:
        case Spec():
            return {"kind": value.kind, "name": value.name, "kwargs": _items_to_json(value.kwargs)}
        case Mapping():
            return {"mapping": _items_to_json(value)}
        case tuple() | list():
            return [spec_to_json(item) for item in value]
        case float() if math.isinf(value):
            return {"float": repr(value)}
        case None | bool() | int() | float() | str():
            return value
    raise TypeError(f"a Spec cannot hold {value!r} ({type(value).__name__})")


def spec_from_json(data: Any) -> Any:
    """The value that `spec_to_json` turned into `data`."""
    match data:
        case {"kind": kind, "name": name, "kwargs": kwargs}:
            return Spec(kind, name, _items_from_json(kwargs))
        case {"mapping": items}:
            return _items_from_json(items)
        case {"float": text}:
            return float(text)
        case list():
            return tuple(spec_from_json(item) for item in data)
        case dict():
            raise ConfigError(f"not a saved Spec: a mapping with the keys {', '.join(map(repr, data)) or 'none'}")
    return data


def spec_hash(spec: Spec) -> str:
    """12 hexadecimal digits of the SHA-256 of the Spec's canonical JSON: the same in every process and version."""
    text = json.dumps(spec_to_json(spec), sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def identity(spec: Spec) -> Spec:
    """The Spec without every parameter that its component calls OPERATIONAL: what decides what is learned.

    Imports the components' modules. Two runs with equal identities compute the same parameters.
    """
    component = REGISTRIES[spec.kind].get(spec.name)
    operational: frozenset[str] = getattr(component, "OPERATIONAL", frozenset())
    kept = {key: _identity(value) for key, value in spec.kwargs.items() if key not in operational}
    return Spec(spec.kind, spec.name, FrozenDict(kept))


def diff(a: Value, b: Value, path: str = "") -> list[tuple[str, Value, Value]]:
    """The places where two Specs (or values) differ, as (path, value in a, value in b).

    Two different components at one place are one difference; what only one side has is `ABSENT` on the other.
    """
    if isinstance(a, Spec) and isinstance(b, Spec) and (a.kind, a.name) == (b.kind, b.name):
        return _diff_items(a.kwargs, b.kwargs, path)
    if isinstance(a, Mapping) and isinstance(b, Mapping):
        return _diff_items(a, b, path)
    if isinstance(a, tuple) and isinstance(b, tuple):
        return _diff_items(dict(_numbered(a)), dict(_numbered(b)), path)
    return [] if type(a) is type(b) and a == b else [(path, a, b)]


def join_path(path: str, key: object) -> str:
    """`path.key`, or `key` at the root."""
    return f"{path}.{key}" if path else str(key)


def map_specs(value: Value, change: Callable[[Spec], Any]) -> Any:
    """`value` with `change` applied to each Spec that it holds directly or in sequences and mappings."""
    match value:
        case Spec():
            return change(value)
        case Mapping():
            return FrozenDict({key: map_specs(item, change) for key, item in value.items()})
        case tuple():
            return tuple(map_specs(item, change) for item in value)
    return value


def with_values(value: Value, values: Mapping[str, Any], path: str = "") -> Any:
    """`value` with others at some of its places; what is put there need be no plain data.

    Args:
      value: a Spec, or a value in one.
      values: path below it, such as `optimizer.learning_rate` -> what stands there instead.
      path: of `value` itself.
    """
    if path in values:
        return values[path]
    match value:
        case Spec():
            return Spec(value.kind, value.name, with_values(value.kwargs, values, path))
        case Mapping():
            items = {key: with_values(item, values, join_path(path, key)) for key, item in value.items()}
            return FrozenDict(items)
        case tuple():
            return tuple(with_values(item, values, join_path(path, i)) for i, item in enumerate(value))
    return value


def walk(spec: Spec, path: str = "") -> Iterator[tuple[str, Spec]]:
    """The Spec and every Spec below it, each with its path; parents come first."""
    yield path, spec
    for key, value in spec.kwargs.items():
        yield from _walk_value(value, join_path(path, key))


def _walk_value(value: Value, path: str) -> Iterator[tuple[str, Spec]]:
    match value:
        case Spec():
            yield from walk(value, path)
        case Mapping():
            for key, item in value.items():
                yield from _walk_value(item, join_path(path, key))
        case tuple():
            for index, item in enumerate(value):
                yield from _walk_value(item, join_path(path, index))


def _identity(value: Value) -> Any:
    return map_specs(value, identity)


def _numbered(values: tuple[Value, ...]) -> Iterator[tuple[str, Value]]:
    return ((str(index), value) for index, value in enumerate(values))


def _diff_items(a: Mapping[str, Value], b: Mapping[str, Value], path: str) -> list[tuple[str, Value, Value]]:
    found: list[tuple[str, Value, Value]] = []
    for key in [*a, *(key for key in b if key not in a)]:
        found += diff(a.get(key, ABSENT), b.get(key, ABSENT), join_path(path, key))
    return found


def _items_to_json(items: Mapping[str, Value]) -> dict[str, Any]:
    return {key: spec_to_json(value) for key, value in items.items()}


def _items_from_json(items: Mapping[str, Any]) -> FrozenDict:
    return FrozenDict({key: spec_from_json(value) for key, value in items.items()})
