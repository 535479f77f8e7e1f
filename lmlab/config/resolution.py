"""Statements to a Spec tree: every name found, every value checked, every binding consumed, or the run is refused."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from os import PathLike, fspath
from types import ModuleType
from typing import NamedTuple

from lmlab import registry
from lmlab.config.precedence import refuse, settle
from lmlab.config.resolved import Resolved
from lmlab.config.text import AXES, Binding, Statements, read_statements, with_axes
from lmlab.config.tree import Tree
from lmlab.config.types import spell_value
from lmlab.config.unconsumed import idle, macros_in, unconsumed, why_idle
from lmlab.contracts import FrozenDict, Value
from lmlab.errors import ConfigError


def resolve(
    files: str | PathLike[str] | Sequence[str | PathLike[str]],
    overrides: Sequence[str] | Mapping[str, Value] | str = (),
    plugins: Sequence[str] = (),
    root: str = "experiment",
    parts: Sequence[str] = (),
) -> Resolved:
    """Reads a configuration and resolves it into a Spec, or says everything that is wrong with it.

    Args:
      files: gin files; where two bind one key, the later file wins.
      overrides: gin statements that win over the files, as `gpt.layers = 6`; several may stand in one string, on
        lines of their own or separated by `;`. In Python also `{"gpt.layers": 6}`.
      plugins: `path/to/file.py` or `dotted.module` of each plug-in, beside those that the files import.
      root: the component that the Spec describes.
      parts: resolve only these parameters of the root (none: all). Bindings of what then has no place in the Spec are
        checked for their names only, so that a whole experiment's file serves a command that reads a part of it.

    Raises:
      ConfigError: see the tests in tests/acceptance/test_refusals.py for every mistake that is refused.
    """
    listed = [files] if isinstance(files, str | PathLike) else files
    statements, paths, given, names = _read(listed, _strings(overrides), plugins)
    tree = Tree(settle(statements))
    spec = tree.grow(root, parts)
    if not parts:
        refuse(unconsumed(tree, root))
    return Resolved(spec, FrozenDict(tree.provenance), paths, given, names)


class _Read(NamedTuple):
    """What was asked for, read: the statements, and the files, overrides and plug-ins that they are of."""

    statements: Statements
    files: tuple[str, ...]
    overrides: tuple[str, ...]
    plugins: tuple[str, ...]


def _read(files: Sequence[str | PathLike[str]], overrides: Sequence[str], plugins: Sequence[str]) -> _Read:
    paths = [fspath(file) for file in files]
    registry.scan_installed_plugins()
    loaded = [registry.load_plugin(plugin) for plugin in plugins]
    statements = read_statements(paths, overrides)
    loaded += [_import(module, place) for module, place in statements.imports]
    names = dict.fromkeys(map(registry.plugin_name, loaded))
    return _Read(statements, tuple(paths), tuple(overrides), tuple(names))


@dataclass(frozen=True)
class Variant:
    """A configuration that differs from others in what is bound to some keys.

    Attributes:
      resolved: what it came to; its overrides end with those of its keys that change something.
      idle: keys that change nothing in it, such as `gpt.layers` where the model is another one.
    """

    resolved: Resolved
    idle: tuple[str, ...]


def resolve_variants(
    files: Sequence[str | PathLike[str]],
    overrides: Sequence[str],
    plugins: Sequence[str],
    variants: Sequence[Mapping[str, str]],
    *,
    root: str = "experiment",
    beside: Sequence[str] = (),
) -> list[Variant]:
    """Resolves one configuration in several variants.

    What a file or the command line says must change something in one of them, not in each.

    Args:
      files, overrides, plugins, root: as of `resolve`.
      variants: of each, what it binds, as gin writes it: key -> value.
      beside: components whose bindings stand in the same files and are not part of the root.

    Raises:
      ConfigError: a variant cannot be run as written, or something changes nothing in all of them.
    """
    statements, paths, given, names = _read(files, overrides, plugins)
    found, idle_in_all = [], None
    for bound in variants:
        tree = Tree(settle(with_axes(statements, bound)))
        spec = tree.grow(root)
        left = {binding.key: binding for binding in _idle(tree, beside)}
        own = tuple(str(binding) for binding in left.values() if binding.place == AXES)
        others = {key: why_idle(tree, binding, root) for key, binding in left.items() if binding.place != AXES}
        idle_in_all = others if idle_in_all is None else {k: why for k, why in idle_in_all.items() if k in others}
        texts = tuple(f"{key} = {value}" for key, value in bound.items() if key not in own)
        resolved = Resolved(spec, FrozenDict(tree.provenance), paths, (*given, *texts), names)
        found.append(Variant(resolved, own))
    refuse((idle_in_all or {}).values())
    return found


def _idle(tree: Tree, beside: Sequence[str]) -> Iterator[Binding]:
    """What no part of the tree took, without what belongs to other roots and the macros that these use."""
    theirs = [binding.value for binding in tree.bindings.winners.values() if binding.selector in beside]
    used = {name for value in theirs for name in macros_in(value)}
    return (b for b in idle(tree) if b.selector not in beside and (b.parameter or str(b) not in used))


def _strings(overrides: Sequence[str] | Mapping[str, Value] | str) -> list[str]:
    if isinstance(overrides, Mapping):
        return [f"{key} = {spell_value(value)}" for key, value in overrides.items()]
    return [overrides] if isinstance(overrides, str) else list(overrides)


def _import(module: str, place: str) -> ModuleType:
    try:
        return registry.load_plugin(module)
    except ConfigError as error:
        raise ConfigError(f"{place}: {error}") from error.__cause__
