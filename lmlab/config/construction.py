"""A Spec to the object that it describes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from lmlab.config.parameters import Parameter, parameters, supplied_parameters
from lmlab.config.specs import join_path
from lmlab.config.types import spell_value
from lmlab.contracts import FrozenDict, Spec, Value
from lmlab.errors import ConfigError
from lmlab.registry import REGISTRIES, Entry


def build(
    spec: Spec,
    provenance: Mapping[str, str] | None = None,
    path: str = "",
    made: Mapping[str, Any] | None = None,
    /,
    **supplied: Any,
) -> Any:
    """The component that `spec` describes, with the components below it built too.

    A parameter annotated `Annotated[Spec, ...]` receives the Spec. Types are not checked here, so that numbers may be
    tracers. What a component does not name in its signature is not given to it (see `contracts.SUPPLIED`).

    Args:
      spec: what to build.
      provenance: `Resolved.provenance`, to say in an error where a value comes from.
      path: where `spec` stands below the root, for the same purpose.
      made: components below it that are built already, by path.
      supplied: what the program gives, to this component and to those below it.

    Raises:
      ConfigError: the component refuses its values (a ValueError raised while it is made).
    """
    entry = REGISTRIES[spec.kind].entry(spec.name)
    known = parameters(entry)
    if strange := [key for key in spec.kwargs if key not in known]:
        raise ConfigError(
            f"{path or spec.name}: the {spec.kind} '{spec.name}' ({entry.place}) has no parameter '{strange[0]}'. "
            f"It has: {', '.join(known) or 'none'}. The Spec was made by another version of it: resolve it again."
        )

    def part_of(parameter: Parameter) -> Callable[[Spec, str], Any]:
        def part(inner: Spec, at: str) -> Any:
            if made is not None and at in made:
                return made[at]
            kept = parameter.keeps_spec(inner.kind, inner.name)
            return inner if kept else build(inner, provenance, at, made, **supplied)

        return part

    kwargs = {key: _built(value, part_of(known[key]), join_path(path, key)) for key, value in spec.kwargs.items()}
    kwargs |= {name: supplied[name] for name in supplied_parameters(entry) if name in supplied}
    try:
        return entry.component(**kwargs)
    except ValueError as error:
        raise ConfigError(_refused(spec, entry, provenance or {}, path, error)) from error


def _built(value: Value, part: Callable[[Spec, str], Any], path: str) -> Any:
    match value:
        case Spec():
            return part(value, path)
        case tuple():
            return tuple(_built(item, part, join_path(path, index)) for index, item in enumerate(value))
        case Mapping():
            return FrozenDict({key: _built(item, part, join_path(path, key)) for key, item in value.items()})
    return value


def _refused(spec: Spec, entry: Entry, provenance: Mapping[str, str], path: str, error: ValueError) -> str:
    """What the component said, and where the values that it speaks of come from."""
    words = "".join(c if c.isalnum() or c == "_" else " " for c in str(error)).split()
    named = [key for key in spec.kwargs if key in words] or list(spec.kwargs)
    shown = {key: f"{spec.name}.{key} = {spell_value(spec.kwargs[key])}" for key in named}
    width = max(map(len, shown.values()), default=0)
    lines = [f"  {text:{width}}  {provenance.get(join_path(path, key), '')}".rstrip() for key, text in shown.items()]
    return "\n".join([f"{path or spec.kind}: the {spec.kind} '{spec.name}' ({entry.place}) says: {error}", *lines])
