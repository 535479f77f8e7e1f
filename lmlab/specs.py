"""Plain data that a configuration resolves to, and what a component's defaults say of other components."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, NewType

Value = Any
"""None, bool, int, float, str, Spec, or a tuple or str-keyed FrozenDict of these: what a Spec may hold."""


class FrozenDict(dict[str, Value]):
    """A dict that cannot change and can be hashed: the mapping inside a Spec."""

    def _refuse(self, *args: object, **kwargs: object) -> Any:
        raise TypeError("a FrozenDict cannot change; make a new one")

    __setitem__ = __delitem__ = __ior__ = update = pop = popitem = clear = setdefault = _refuse

    def __hash__(self) -> int:  # type: ignore[override]
        return hash(frozenset(self.items()))

    def __reduce__(self) -> tuple[type[FrozenDict], tuple[dict[str, Value]]]:
        return (FrozenDict, (dict(self),))


@dataclass(frozen=True)
class Spec:
    """What a name plus its bindings resolve to: plain data, complete (defaults included), nested.

    It is what is checked, hashed, saved, compared, swept over and sent to workers.
    """

    kind: str
    name: str
    kwargs: FrozenDict = field(default_factory=FrozenDict)


@dataclass(frozen=True)
class Ref:
    """The default of a parameter that holds a component: as if the configuration said `@name`."""

    name: str


Written = NewType("Written", str)
"""The annotation of values that a parameter keeps as gin writes them: a str such as `@gpt`, `%RATE` or `0.001`.

They may stand in sequences and in mappings: `tuple[Written, ...]`. What they name is not looked up.
"""


@dataclass(frozen=True)
class Follows:
    """The default of a parameter that holds components: those that the component of an earlier parameter names.

    Args:
      parameter: the earlier parameter.
      attribute: of its component's class: a tuple of names.
      otherwise: the names where the class has no such attribute.
    """

    parameter: str
    attribute: str
    otherwise: tuple[str, ...] = ()
