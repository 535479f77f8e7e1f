"""Statements to a Spec tree: every name found, every value checked, every binding consumed, or the run is refused."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from os import PathLike, fspath
from types import ModuleType

from lmlab import registry
from lmlab.config.precedence import refuse, settle
from lmlab.config.resolved import Resolved
from lmlab.config.text import read_statements
from lmlab.config.tree import Tree
from lmlab.config.types import spell_value
from lmlab.config.unconsumed import unconsumed
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
    paths = [fspath(file) for file in ([files] if isinstance(files, str | PathLike) else files)]
    overrides = _strings(overrides)
    registry.scan_installed_plugins()
    loaded = [registry.load_plugin(plugin) for plugin in plugins]
    statements = read_statements(paths, overrides)
    loaded += [_import(module, place) for module, place in statements.imports]
    tree = Tree(settle(statements))
    spec = tree.grow(root, parts)
    if not parts:
        refuse(unconsumed(tree, root))
    names = dict.fromkeys(map(registry.plugin_name, loaded))
    return Resolved(spec, FrozenDict(tree.provenance), tuple(paths), tuple(overrides), tuple(names))


def _strings(overrides: Sequence[str] | Mapping[str, Value] | str) -> list[str]:
    if isinstance(overrides, Mapping):
        return [f"{key} = {spell_value(value)}" for key, value in overrides.items()]
    return [overrides] if isinstance(overrides, str) else list(overrides)


def _import(module: str, place: str) -> ModuleType:
    try:
        return registry.load_plugin(module)
    except ConfigError as error:
        raise ConfigError(f"{place}: {error}") from error.__cause__
