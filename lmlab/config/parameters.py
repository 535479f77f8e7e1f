"""What a component can be configured by: its parameters, with annotations resolved and defaults as plain data."""

from __future__ import annotations

import dataclasses
import functools
import inspect
import sys
import typing
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from lmlab.config.types import component_targets, unsupported
from lmlab.contracts import SUPPLIED
from lmlab.errors import ConfigError
from lmlab.registry import Entry, signature

REQUIRED = inspect.Parameter.empty
"""The default of a parameter that has none."""


@dataclass(frozen=True)
class Parameter:
    """One parameter of a component: its name, its annotation (resolved), its default or `REQUIRED`."""

    name: str
    annotation: Any
    default: Any

    def keeps_spec(self, kind: str, name: str) -> bool:
        """Whether a component held here stays a Spec (`Annotated[Spec, ...]`) instead of being built."""
        return any(target.kept and target.accepts(kind, name) for target in component_targets(self.annotation))


def parameters(entry: Entry) -> Mapping[str, Parameter]:
    """The parameters that a configuration may bind, in the order of the signature; imports the component.

    Those that the program supplies to components of this kind are not among them.
    """
    return _parameters(entry, entry.component)


@functools.cache
def _parameters(entry: Entry, component: Callable[..., Any]) -> Mapping[str, Parameter]:
    supplied = SUPPLIED.get(entry.kind, ())
    return {
        name: Parameter(name, _annotation(entry, component, name, found), _default(component, name, found.default))
        for name, found in signature(component).parameters.items()
        if name not in supplied
    }


def supplied_parameters(entry: Entry) -> tuple[str, ...]:
    """The parameters that the program gives to this component."""
    return _supplied(entry.kind, entry.component)


@functools.cache
def _supplied(kind: str, component: Callable[..., Any]) -> tuple[str, ...]:
    own = signature(component).parameters
    return tuple(name for name in SUPPLIED.get(kind, ()) if name in own)


def _annotation(entry: Entry, component: Callable[..., Any], name: str, parameter: inspect.Parameter) -> Any:
    where = f"the {entry.kind} '{entry.name}' ({entry.place})"
    if parameter.annotation is inspect.Parameter.empty:
        raise ConfigError(f"{where}: its parameter '{name}' has no annotation, so its values cannot be checked.")
    raw, globals_, locals_ = _written(component, name, parameter.annotation)
    try:
        annotation = _resolved(raw, globals_, locals_)
    except Exception as error:
        raise ConfigError(
            f"{where}: the annotation of '{name}', {raw!r}, cannot be resolved: {error}. Import what it names at the "
            "top of the module, not under TYPE_CHECKING."
        ) from error
    if wrong := unsupported(annotation):
        raise ConfigError(
            f"{where}: the annotation of '{name}' holds {wrong}, which a configuration cannot. Use int, float, bool, "
            "str, None, Literal, tuple, dict, or a type of lmlab.contracts.KIND_TYPES."
        )
    return annotation


def _written(component: Callable[..., Any], name: str, annotation: Any) -> tuple[Any, dict[str, Any], dict[str, Any]]:
    """An annotation as written, and the names that it may use: those of the class or function that wrote it."""
    if dataclasses.is_dataclass(component):
        for owner in inspect.getmro(typing.cast(type, component)):
            own = inspect.get_annotations(owner)
            if name in own:
                return own[name], vars(sys.modules[owner.__module__]), dict(vars(owner))
    function: Any = component.__init__ if inspect.isclass(component) else component
    return annotation, getattr(inspect.unwrap(function), "__globals__", {}), {}


def _resolved(annotation: Any, globals_: dict[str, Any], locals_: dict[str, Any]) -> Any:
    # One annotation at a time: another parameter's may be of a type that is imported for type checkers only.
    def holder() -> None: ...

    holder.__annotations__ = {"it": annotation}
    return typing.get_type_hints(holder, globals_, locals_, include_extras=True)["it"]


def _default(component: Callable[..., Any], name: str, default: Any) -> Any:
    if dataclasses.is_dataclass(component):
        for found in dataclasses.fields(component):
            if found.name == name and found.default_factory is not dataclasses.MISSING:
                return found.default_factory()
    return default
