"""Values against annotations: does a bound value fit its parameter, and how are both written for people.

An annotation is made of int, float, bool, str, None, Literal, unions, sequences (tuple, list, Sequence), mappings from
str, numbers in a range (`Annotated[int, ranges.Within(...)]`), and components: a type of `contracts.KIND_TYPES`, a
registered class, or `Annotated[Spec, either of these]`.
"""

from __future__ import annotations

import types
import typing
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal, Union

from lmlab.contracts import KIND_TYPES, Follows, FrozenDict, Ref, Spec
from lmlab.ranges import Within
from lmlab.registry import CATALOGUE, REGISTRIES, find
from lmlab.specs import Written

_SEQUENCES = (tuple, list, Sequence)
_MAPPINGS = (dict, Mapping, FrozenDict)
_SCALARS = (bool, int, float, str)
_WORDS = {"None": None, "True": True, "False": False}


class Mismatch(Exception):
    """A value does not fit an annotation; the message says in which part, where that is not the whole value."""


@dataclass(frozen=True)
class Target:
    """Which components an annotation accepts: those of a kind (None: any), or the only one of that name."""

    kind: str | None
    name: str | None = None
    kept: bool = False
    """Whether the Spec itself is wanted, to be built later."""

    def accepts(self, kind: str, name: str) -> bool:
        """Whether the component `name` of `kind` may stand here."""
        return self.kind in (None, kind) and self.name in (None, name)

    def __str__(self) -> str:
        return f"@{self.name}" if self.name else self.kind or "any component"


def fit(value: Any, annotation: Any) -> Any:
    """`value` as its parameter wants it (an int becomes a float, a list a tuple), or Mismatch."""
    if annotation is Any or annotation is object:
        return value
    if annotation is Written:
        return _check(value, isinstance(value, str))
    origin = typing.get_origin(annotation) or annotation
    if origin in (Union, types.UnionType):
        return _fit_union(value, typing.get_args(annotation))
    if origin is Literal:
        return _check(value, any(type(value) is type(arg) and value == arg for arg in typing.get_args(annotation)))
    if origin in _SEQUENCES:
        return _fit_sequence(value, origin, typing.get_args(annotation))
    if origin in _MAPPINGS:
        return _fit_mapping(value, typing.get_args(annotation))
    if target := target_of(annotation):
        return _check(value, isinstance(value, Spec) and target.accepts(value.kind, value.name))
    if origin is Annotated:
        held, *notes = typing.get_args(annotation)
        found = fit(value, held)
        return _check(found, all(found in note for note in notes if isinstance(note, Within)))
    return _fit_scalar(value, annotation)


def target_of(annotation: Any) -> Target | None:
    """What a component annotation accepts; None for any other annotation."""
    if typing.get_origin(annotation) is Annotated:
        held, *notes = typing.get_args(annotation)
        inner = next((target for note in notes if (target := _component_type(note))), None)
        return Target(inner.kind, inner.name, kept=True) if held is Spec and inner else target_of(held)
    return Target(None, kept=True) if annotation is Spec else _component_type(annotation)


def component_targets(annotation: Any) -> Iterator[Target]:
    """Every component annotation within an annotation."""
    if target := target_of(annotation):
        yield target
    elif typing.get_origin(annotation) is not Literal:
        for arg in typing.get_args(annotation):
            yield from component_targets(arg)


def unsupported(annotation: Any) -> str:
    """The part of an annotation that no configuration can hold, spelled; empty if all of it can be held."""
    origin = typing.get_origin(annotation) or annotation
    if origin is Literal or annotation in (Any, object, None, types.NoneType, Ellipsis, Written, *_SCALARS):
        return ""
    if target_of(annotation):
        return ""
    args = typing.get_args(annotation)
    if origin is Annotated:
        return unsupported(args[0])
    if origin in _MAPPINGS and args and args[0] not in (str, Any):
        return f"a mapping from {spell(args[0])}"
    if origin in (Union, types.UnionType, *_SEQUENCES, *_MAPPINGS):
        return next(filter(None, map(unsupported, args)), "")
    return spell(annotation)


def keeps_text(annotation: Any) -> bool:
    """Whether values are kept as gin writes them, somewhere in what the annotation describes."""
    return annotation is Written or any(keeps_text(arg) for arg in typing.get_args(annotation))


def is_mapping(annotation: Any) -> bool:
    """Whether the annotation describes a mapping."""
    return (typing.get_origin(annotation) or annotation) in _MAPPINGS


def is_sequence(annotation: Any) -> bool:
    """Whether the annotation describes a sequence."""
    return (typing.get_origin(annotation) or annotation) in _SEQUENCES


def spell(annotation: Any) -> str:
    """An annotation as people say it: `int`, `float | schedule`, `sequence of evaluator`."""
    origin, args = typing.get_origin(annotation) or annotation, typing.get_args(annotation)
    if annotation is None or annotation is types.NoneType:
        return "None"
    if origin in (Union, types.UnionType):
        return " | ".join(map(spell, args))
    if origin is Literal:
        return " | ".join(map(repr, args))
    if target := target_of(annotation):
        return str(target)
    if origin is Annotated:
        return " ".join([spell(args[0]), *(str(note) for note in args[1:] if isinstance(note, Within))])
    if origin is tuple and args and args[-1] is not Ellipsis:
        return f"({', '.join(map(spell, args))})"
    if origin in _SEQUENCES:
        return f"sequence of {spell(args[0])}" if args else "sequence"
    if origin in _MAPPINGS:
        return f"dict of {spell(args[1])}" if args else "dict"
    return "anything" if annotation in (Any, Written) else getattr(annotation, "__name__", str(annotation))


def spell_value(value: Any) -> str:
    """A value as gin writes it, with components as `@name` alone."""
    match value:
        case Spec():
            return f"@{value.name}"
        case Ref():
            return f"@{value.name}"
        case Follows():
            return f"as {value.parameter} says"
        case tuple() | list():
            return f"[{', '.join(map(spell_value, value))}]"
        case Mapping():
            return f"{{{', '.join(f'{key!r}: {spell_value(item)}' for key, item in value.items())}}}"
    return repr(value)


def type_of(value: Any) -> str:
    """What a value is, in the words of an annotation."""
    match value:
        case Spec():
            return f"{value.kind}"
        case None:
            return "None"
        case tuple():
            return "sequence"
        case Mapping():
            return "dict"
    return type(value).__name__


def way_out(value: Any, annotation: Any) -> str:
    """What to write instead, where that can be guessed from what is written; else the names that would fit."""
    if isinstance(value, str):
        targets = component_targets(annotation)
        known = find(value)
        if known and any(target.accepts(known.kind, known.name) for target in targets):
            return f"Write @{value}, without quotes."
        if value in _WORDS and _fits(_WORDS[value], annotation):
            return f"Write {value}, without quotes."
    if isinstance(value, float) and value.is_integer() and _fits(int(value), annotation):
        return f"Write {int(value)}."
    if not isinstance(value, tuple) and _fits((value,), annotation):
        return f"Write [{spell_value(value)}]."
    return fitting_names(annotation)


def fitting_names(annotation: Any) -> str:
    """The names of the components that an annotation accepts, a line for each kind."""
    targets = component_targets(annotation)
    kinds = dict.fromkeys(target.kind for target in targets if target.kind and not target.name)
    return "\n  ".join(f"known {kind} names: {', '.join(REGISTRIES[kind].names()) or 'none'}" for kind in kinds)


def _component_type(annotation: Any) -> Target | None:
    for kind, contract in KIND_TYPES.items():
        if annotation is contract:
            return Target(kind)
    if isinstance(annotation, type) and annotation.__module__ != "builtins":
        for entry in CATALOGUE.entries().values():
            if (entry.module, entry.qualname) == (annotation.__module__, annotation.__qualname__):
                return Target(entry.kind, entry.name)
    return None


def _fits(value: Any, annotation: Any) -> bool:
    try:
        fit(value, annotation)
    except Mismatch:
        return False
    return True


def _check(value: Any, good: bool) -> Any:
    if not good:
        raise Mismatch
    return value


def _fit_scalar(value: Any, annotation: Any) -> Any:
    if annotation is None or annotation is types.NoneType:
        return _check(value, value is None)
    if annotation is float and type(value) is int:
        try:
            return float(value)
        except OverflowError:
            raise Mismatch from None
    return _check(value, type(value) is annotation)  # type(), so that True is no int


def _fit_union(value: Any, members: Sequence[Any]) -> Any:
    fitted = []
    for member in members:
        try:
            found = fit(value, member)
        except Mismatch:
            continue
        if type(found) is type(value) and found == value:  # `float | int` keeps 3 an int
            return found
        fitted.append(found)
    if not fitted:
        raise Mismatch
    return fitted[0]


def _fit_sequence(value: Any, origin: Any, args: tuple[Any, ...]) -> Any:
    _check(value, isinstance(value, tuple | list))
    if origin is tuple and args and args[-1] is not Ellipsis:
        wanted: Sequence[Any] = () if args == ((),) else args
        if len(wanted) != len(value):
            raise Mismatch(f"it has {len(value)} items, not {len(wanted)}")
    else:
        wanted = [args[0] if args else Any] * len(value)
    pairs = enumerate(zip(value, wanted, strict=True))
    return tuple(_fit_item(item, annotation, f"item {index}") for index, (item, annotation) in pairs)


def _fit_mapping(value: Any, args: tuple[Any, ...]) -> Any:
    _check(value, isinstance(value, Mapping))
    wanted = args[1] if args else Any
    return FrozenDict({key: _fit_item(item, wanted, f"{key!r}") for key, item in value.items()})


def _fit_item(item: Any, annotation: Any, where: str) -> Any:
    try:
        return fit(item, annotation)
    except Mismatch as error:
        inner = f": {error}" if str(error) else f" is {spell_value(item)} ({type_of(item)})"
        raise Mismatch(f"{where}{inner}") from None
