"""A Spec as gin text that resolves to it again."""

from __future__ import annotations

import math
from collections.abc import Mapping

from lmlab.config.specs import join_path
from lmlab.contracts import Spec, Value


def gin_text(spec: Spec, provenance: Mapping[str, str] | None = None, plugins: tuple[str, ...] = ()) -> str:
    """gin text in which every parameter of every component is bound, the root's first.

    Where a component stands several times and differently, each instance gets a scope of its own. Provenance becomes
    the comment at the end of a line. Plug-in modules are imported; a plug-in file, which gin cannot import, is named in
    a comment.
    """
    lines = [f"import {p}" if not p.endswith(".py") else f"# needs: --plugin {p}" for p in plugins]
    return "\n".join([*lines, *_Writer(provenance or {}).write(spec)]) + "\n"


class _Writer:
    """Gives each distinct instance its scope, and writes its block once."""

    def __init__(self, provenance: Mapping[str, str]) -> None:
        self._provenance = provenance
        self._instances: dict[str, list[Spec]] = {}
        self._written: set[str] = set()
        self._waiting: list[tuple[str, Spec, str]] = []

    def write(self, root: Spec) -> list[str]:
        """All lines, each component after the one that holds it."""
        self._collect(root)
        self._reference(root, "")
        lines: list[str] = []
        while self._waiting:
            selector, spec, path = self._waiting.pop(0)
            lines += ["", *self._block(selector, spec, path)] if spec.kwargs else []
        return lines[1:]

    def _block(self, selector: str, spec: Spec, path: str) -> list[str]:
        texts = {key: f"{selector}.{key} = {self._value(v, join_path(path, key))}" for key, v in spec.kwargs.items()}
        width = min(60, max(map(len, texts.values())))
        places = {key: self._provenance.get(join_path(path, key), "") for key in texts}
        return [f"{text:{width}}  # {places[key]}" if places[key] else text for key, text in texts.items()]

    def _reference(self, spec: Spec, path: str) -> str:
        """The selector of this instance; its block is written once, however often it stands."""
        known = self._instances[spec.name]
        number = next(i for i, other in enumerate(known, start=1) if _same(other, spec))
        # All of several get a scope, the first too: inside the scope of another, `@name` would be that other one.
        selector = f"{spec.name}_{number}/{spec.name}" if len(known) > 1 else spec.name
        if selector not in self._written:
            self._written.add(selector)
            self._waiting.append((selector, spec, path))
        return selector

    def _collect(self, value: Value) -> None:
        """Finds the distinct instances of every component."""
        match value:
            case Spec():
                known = self._instances.setdefault(value.name, [])
                if not any(_same(other, value) for other in known):
                    known.append(value)
                    self._collect(value.kwargs)
            case tuple():
                for item in value:
                    self._collect(item)
            case Mapping():
                self._collect(tuple(value.values()))

    def _value(self, value: Value, path: str) -> str:
        match value:
            case Spec():
                return f"@{self._reference(value, path)}"
            case tuple():
                return f"[{', '.join(self._value(item, join_path(path, i)) for i, item in enumerate(value))}]"
            case Mapping():
                items = (f"{key!r}: {self._value(item, join_path(path, key))}" for key, item in value.items())
                return f"{{{', '.join(items)}}}"
            case float() if math.isinf(value):
                return "1e999" if value > 0 else "-1e999"  # gin has no word for infinity; this overflows to it
        return repr(value)


def _same(a: Spec, b: Spec) -> bool:
    return repr(a) == repr(b)  # unlike ==, tells 1 from 1.0 and True
