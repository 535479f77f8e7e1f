"""Bindings to a Spec tree: every name found, every value checked against its annotation, its place written down."""

from __future__ import annotations

import contextlib
import math
import typing
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, NoReturn

from lmlab.config.parameters import REQUIRED, Parameter, parameters, supplied_parameters
from lmlab.config.precedence import Bindings, refuse, spell_raw, split_kind
from lmlab.config.specs import join_path
from lmlab.config.text import GIN_REQUIRED, Binding, Items, Macro, Reference
from lmlab.config.types import (
    Mismatch,
    component_targets,
    fit,
    fitting_names,
    is_mapping,
    is_sequence,
    keeps_text,
    spell,
    spell_value,
    type_of,
    way_out,
)
from lmlab.contracts import Follows, FrozenDict, Ref, Spec
from lmlab.registry import REGISTRIES, Entry, all_names, article, find, load_installed_plugins, near_names
from lmlab.specs import Written

DEFAULT = "default"


@dataclass(frozen=True)
class Origin:
    """Where a written value stands, and the scope in which its references are resolved."""

    place: str
    scope: str
    default_of: tuple[Entry, str] | None = None
    """Whose default it is, and of which parameter: a default has no line of the configuration."""
    kind: str | None = None
    """The kind of component that may stand there, where there is only one."""

    def __str__(self) -> str:
        if self.default_of is None:
            return self.place
        entry, parameter = self.default_of
        return f"{entry.place}: the default of {entry.name}.{parameter}"


@dataclass(frozen=True)
class Use:
    """A parameter of a component in the tree, and what it came to."""

    path: str
    component: str
    parameter: Parameter
    value: Any
    place: str


class Refused(Exception):
    """A value is not to be had; why is already among the tree's problems."""


class Tree:
    """One pass from the root down; problems are collected on the way, so that all are shown at once."""

    def __init__(self, bindings: Bindings) -> None:
        self.bindings = bindings
        self.provenance: dict[str, str] = {}
        self.problems: list[str] = []
        self.consumed: set[tuple[str, str, str]] = set()
        self.scopes: dict[str, set[str]] = {}
        """The scopes that each component of the tree is used under."""
        self.uses: list[Use] = []
        self._root = ""
        self._parts: Sequence[str] = ()
        self._open_components: list[tuple[str, str]] = []
        self._open_macros: list[str] = []

    def grow(self, root: str, parts: Sequence[str] = ()) -> Spec:
        """The Spec of the component `root`, or of these of its parameters; one ConfigError with all problems."""
        self._root, self._parts = root, parts
        for binding in self.bindings.winners.values():
            if binding.parameter:
                self._check_key(binding)
        refuse(self.problems)
        with contextlib.suppress(Refused):
            return self._component(root, "", Origin("the root", ""))
        refuse(self.problems)
        raise AssertionError("a part of the tree was refused without a reason")

    # --- keys ---

    def _check_key(self, binding: Binding) -> None:
        entry = self._found(*split_kind(binding.written), binding.place)
        if entry is None:
            return
        known = parameters(entry)
        if binding.parameter in supplied_parameters(entry):
            self.problems.append(
                f"{binding.place}: '{binding}' is shadowed: the program itself gives '{binding.parameter}' to the "
                f"{entry.kind}. Take this line out."
            )
        elif binding.parameter not in known:
            near = near_names(binding.parameter, list(known))
            self.problems.append(
                f"{binding.place}: the {entry.kind} '{entry.name}' has no parameter '{binding.parameter}'.{near}\n"
                f"  parameters of {entry.name}: {', '.join(known) or 'none'}"
            )

    def _found(self, kind: str | None, name: str, place: object, likely: str | None = None) -> Entry | None:
        """The component of a kind (None: any) and name; None, and a problem, if there is none."""
        entry = find(name)
        if entry is None:
            load_installed_plugins()  # one may register names in a way that reading its source did not show
            entry = find(name)
        if entry is not None and kind in (None, entry.kind):
            return entry
        kind = kind or likely
        known = REGISTRIES[kind].names() if kind else all_names()
        other = f" ('{name}' is {article(entry.kind)}.)" if entry else ""
        head, dot, _ = name.partition(".")
        path = f" A binding names the component itself: gpt.layers, not {name}.layers." if dot and find(head) else ""
        self.problems.append(
            f"{place}: no {kind or 'component'} named '{name}'.{other}{near_names(name, known)}{path}\n"
            f"  known {kind or 'component'} names: {', '.join(known) or 'none'}   (lmlab list)"
        )
        return None

    # --- components ---

    def _component(self, selector: str, path: str, origin: Origin) -> Spec:
        """The Spec of one instance: its parameters from the bindings in its scope, or from its defaults."""
        entry = self._found(*split_kind(selector), origin, origin.kind)
        if entry is None:
            raise Refused
        instance = (entry.name, origin.scope)
        if instance in self._open_components:
            circle = " -> ".join(f"@{name}" for name, _ in [*self._open_components, instance])
            self._problem(f"{origin}: '@{entry.name}' holds itself: {circle}. Choose another one, or give it a scope.")
        self._open_components.append(instance)
        self.scopes.setdefault(entry.name, set()).add(origin.scope)
        kwargs: dict[str, Any] = {}
        before = len(self.problems)
        for parameter in parameters(entry).values():
            if not path and self._parts and parameter.name not in self._parts:
                continue
            try:
                at = join_path(path, parameter.name)
                kwargs[parameter.name] = self._parameter(entry, parameter, at, origin.scope, kwargs)
            except Refused:
                continue  # go on, so that the others' problems are shown too
        self._open_components.pop()
        if len(self.problems) > before:
            raise Refused
        return Spec(entry.kind, entry.name, FrozenDict(kwargs))

    def _parameter(self, entry: Entry, parameter: Parameter, path: str, scope: str, earlier: Mapping[str, Any]) -> Any:
        """The value of one parameter, checked against its annotation; `earlier` ones may decide its default."""
        key = f"{entry.name}.{parameter.name}"
        binding = self._binding(entry.name, parameter.name, scope)
        raw = binding.value if binding else _default(parameter, earlier)
        if raw is REQUIRED or raw == Macro(GIN_REQUIRED):
            self._missing(entry, parameter, path, binding)
        kinds = {target.kind for target in component_targets(parameter.annotation)}
        kind = kinds.pop() if len(kinds) == 1 else None
        if binding:
            origin = Origin(binding.place, scope, kind=kind)
        else:
            origin = Origin(DEFAULT, scope, (entry, parameter.name), kind)
        value, place = self._value(raw, path, origin, parameter.annotation)
        try:
            value = fit(value, parameter.annotation)
        except Mismatch as error:
            self._misfit(origin if place == DEFAULT else place, key, value, parameter.annotation, error)
        self.provenance[path] = place
        self.uses.append(Use(path, entry.name, parameter, value, place))
        return value

    def _binding(self, name: str, parameter: str, scope: str) -> Binding | None:
        """The binding of the longest prefix of the scope, as gin has it."""
        parts = scope.split("/") if scope else []
        for length in range(len(parts), -1, -1):
            key = ("/".join(parts[:length]), name, parameter)
            if key in self.bindings.winners:
                self.consumed.add(key)
                return self.bindings.winners[key]
        return None

    # --- values ---

    def _value(self, raw: Any, path: str, origin: Origin, annotation: Any = None) -> tuple[Any, str]:
        """A written value with its macros replaced and its references resolved, and where it comes from."""
        if not isinstance(raw, Macro):
            if keeps_text(annotation):
                return self._written(raw, annotation, path, origin), origin.place
            return self._plain(raw, path, origin), origin.place
        macro = self._macro(raw, origin)
        self._open_macros.append(raw.name)
        try:
            inner = replace(origin, place=macro.place, default_of=None)
            value, place = self._value(macro.value, path, inner, annotation)
        finally:
            self._open_macros.pop()
        return value, f"{origin.place} ({raw} from {place})"

    def _plain(self, raw: Any, path: str, origin: Origin) -> Any:
        match raw:
            case Macro():
                return self._value(raw, path, origin)[0]
            case Reference():
                scope = raw.scope or origin.scope
                return self._component(raw.selector, path, replace(origin, scope=scope))
            case Ref():
                return self._component(raw.name, path, origin)
            case tuple() | list():
                return tuple(self._plain(item, join_path(path, i), origin) for i, item in enumerate(raw))
            case Items():
                return self._mapping(raw.pairs, path, origin)
            case Mapping():
                return self._mapping(tuple(raw.items()), path, origin)
        if isinstance(raw, float) and math.isnan(raw):
            self._problem(f"{origin}: nan is equal to nothing, so no run could be compared with this one.")
        if raw is not None and not isinstance(raw, bool | int | float | str | Spec):
            kind = type(raw).__name__
            self._problem(f"{origin}: {raw!r} ({kind}) is no plain data, which a configuration is made of.")
        return raw

    def _written(self, raw: Any, annotation: Any, path: str, origin: Origin) -> Any:
        """A value whose parts are kept as gin writes them, where the annotation says so."""
        match raw:
            case _ if annotation is Written:
                return spell_raw(raw)
            case Items() if is_mapping(annotation):
                _, inner = typing.get_args(annotation)
                keys = self._mapping(tuple((key, None) for key, _ in raw.pairs), path, origin)
                values = [self._written(item, inner, join_path(path, key), origin)
                          for key, (_, item) in zip(keys, raw.pairs, strict=True)]  # fmt: skip
                return FrozenDict(zip(keys, values, strict=True))
            case tuple() if is_sequence(annotation):
                inner, *_ = typing.get_args(annotation)
                return tuple(self._written(item, inner, join_path(path, i), origin) for i, item in enumerate(raw))
        return raw if isinstance(raw, Mapping) else self._plain(raw, path, origin)

    def _mapping(self, pairs: Sequence[tuple[Any, Any]], path: str, origin: Origin) -> FrozenDict:
        found: dict[str, Any] = {}
        for raw, item in pairs:
            key = self._plain(raw, path, origin)
            if not isinstance(key, str):
                self._problem(f"{origin}: the key {spell_value(key)} of a dict is no string. Put it in quotes.")
            if key in found:
                self._problem(f"{origin}: the key {key!r} stands twice in one dict. Keep one of them.")
            found[key] = self._plain(item, join_path(path, key), origin)
        return FrozenDict(found)

    def _macro(self, macro: Macro, origin: Origin) -> Binding:
        scope, _, name = macro.name.rpartition("/")
        binding = self.bindings.winners.get((scope, name, ""))
        if binding is None:
            known = self.bindings.macros()
            gin = " gin's constants are not supported: write the value itself." if "." in macro.name else ""
            self._problem(
                f"{origin}: no macro named '{macro.name}' is set.{near_names(macro.name, known)}{gin}\n"
                f"  macros that are set: {', '.join(known) or 'none'}"
            )
        if macro.name in self._open_macros:
            self._problem(f"{origin}: the macro '{macro}' is defined by itself.")
        self.consumed.add(binding.key)
        return binding

    # --- problems ---

    def _problem(self, text: str) -> NoReturn:
        self.problems.append(text)
        raise Refused

    def _missing(self, entry: Entry, parameter: Parameter, path: str, binding: Binding | None) -> NoReturn:
        key = f"{entry.name}.{parameter.name}"
        why = f" ({binding.place} requires it)" if binding else ""
        names = fitting_names(parameter.annotation)
        self._problem(
            f"{self._root}.{path} has no value: the {entry.kind} '{entry.name}' ({entry.place}) needs one{why}.\n"
            f"  Bind it to {_wanted(parameter.annotation)}: '{key} = ...' in a file, or --set '{key} = ...'"
            + (f"\n  {names}" if names else "")
        )

    def _misfit(self, place: object, key: str, value: Any, annotation: Any, error: Mismatch) -> NoReturn:
        detail, hint = (f": {error}" if str(error) else ""), way_out(value, annotation)
        self._problem(
            f"{place}: {key} wants {_wanted(annotation)}, not {spell_value(value)} ({type_of(value)}){detail}."
            + (f"\n  {hint}" if hint else "")
        )


def _default(parameter: Parameter, earlier: Mapping[str, Any]) -> Any:
    """A parameter's default; one that follows an earlier parameter's component, as that one says."""
    default = parameter.default
    if not isinstance(default, Follows):
        return default
    leader = earlier.get(default.parameter)
    component = REGISTRIES[leader.kind].get(leader.name) if isinstance(leader, Spec) else None
    return tuple(Ref(name) for name in getattr(component, default.attribute, default.otherwise))


def _wanted(annotation: Any) -> str:
    spelled = spell(annotation)
    return article(spelled) if spelled[0].isalpha() else spelled
