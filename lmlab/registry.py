"""Names to components: one `Registry` for every kind, and one catalogue in which a name is unique over all kinds.

A component is a class or a function with a decorator above it:

    @models.register("gpt")
    class GPT(nnx.Module): ...

Built-in components are found by reading the decorators out of lmlab's own source files, without importing
them, so that listing names costs milliseconds and needs neither jax nor flax; a component's module is imported
when the component is first asked for. Plug-ins come through `load_plugin` and are imported then.
"""

from __future__ import annotations

import ast
import difflib
import functools
import importlib
import importlib.metadata
import importlib.util
import inspect
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any, TypeVar

from lmlab.errors import ConfigError

Component = TypeVar("Component", bound=Callable[..., Any])

PLUGIN_GROUP = "lmlab.plugins"


@dataclass(frozen=True)
class Entry:
    """Where a component is: enough to show it, and to import it when it is used."""

    kind: str
    name: str
    module: str
    qualname: str
    file: str
    line: int

    @property
    def place(self) -> str:
        """`file:line` of the definition."""
        return f"{self.file}:{self.line}"

    @functools.cached_property
    def component(self) -> Callable[..., Any]:
        """The class or function itself; imports its module on first use."""
        found: Any = importlib.import_module(self.module)
        for part in self.qualname.split("."):
            found = getattr(found, part)
        return found

    def summary(self) -> str:
        """The first line of the component's docstring, read from its source without importing it."""
        for node in ast.walk(ast.parse(Path(self.file).read_text(encoding="utf-8"))):
            if isinstance(node, ast.ClassDef | ast.FunctionDef) and node.name == self.qualname.split(".")[-1]:
                return (ast.get_docstring(node) or "").split("\n")[0]
        return ""


class Catalogue:
    """Every known name over all kinds; filled from lmlab's own sources on first use."""

    def __init__(self) -> None:
        self._entries: dict[str, Entry] = {}
        self._scanned = False

    def entries(self) -> dict[str, Entry]:
        """All entries by name, built-in ones included."""
        if not self._scanned:
            self._scanned = True
            package = Path(__file__).parent
            for file in sorted(package.rglob("*.py")):
                module = ".".join(("lmlab", *file.relative_to(package).with_suffix("").parts))
                for entry in scan(file, module.removesuffix(".__init__")):
                    self.add(entry)
        return self._entries

    def add(self, entry: Entry) -> None:
        """Adds `entry`; the same definition may come twice (scanned, then imported), another one may not."""
        known = self.entries().get(entry.name)
        if known and (known.file, known.qualname, known.kind) != (entry.file, entry.qualname, entry.kind):
            raise ConfigError(
                f"the name '{entry.name}' is registered twice: as a {known.kind} at {known.place}, "
                f"and as a {entry.kind} at {entry.place}. Rename one of them."
            )
        if not known:
            self._entries[entry.name] = entry


def scan(file: Path, module: str) -> Iterator[Entry]:
    """The components that a source file registers by a decorator at its top level, without importing it."""
    text = file.read_text(encoding="utf-8")
    if ".register(" not in text:
        return
    for node in ast.parse(text).body:
        if not isinstance(node, ast.ClassDef | ast.FunctionDef):
            continue
        for decorator in node.decorator_list:
            match decorator:
                case ast.Call(
                    func=ast.Attribute(value=ast.Name(id=plural), attr="register"),
                    args=[ast.Constant(value=str(name))],
                ) if plural in _KIND_OF_PLURAL:
                    yield Entry(_KIND_OF_PLURAL[plural], name, module, node.name, str(file), node.lineno)


class Registry:
    """The components of one kind, by name."""

    def __init__(self, kind: str, catalogue: Catalogue) -> None:
        self.kind = kind
        self._catalogue = catalogue

    def register(self, name: str) -> Callable[[Component], Component]:
        """A decorator that makes a class or function known as `name`; refuses `**kwargs` and a taken name."""

        def decorate(component: Component) -> Component:
            _refuse_open_signature(self.kind, name, component)
            file = inspect.getsourcefile(component) or "?"
            line = inspect.getsourcelines(component)[1]
            self._catalogue.add(
                Entry(self.kind, name, component.__module__, component.__qualname__, file, line)
            )
            return component

        return decorate

    def names(self) -> list[str]:
        """All names of this kind, sorted."""
        return sorted(name for name, entry in self._catalogue.entries().items() if entry.kind == self.kind)

    def entry(self, name: str) -> Entry:
        """The entry called `name`, or a ConfigError with near names and the whole list."""
        entry = self._catalogue.entries().get(name)
        if entry is None or entry.kind != self.kind:
            other = f" ('{name}' is a {entry.kind}.)" if entry else ""
            raise ConfigError(unknown(f"no {self.kind} named '{name}'.{other}", self.kind, name, self.names()))
        return entry

    def get(self, name: str) -> Callable[..., Any]:
        """The component called `name`; imports its module."""
        return self.entry(name).component


def unknown(problem: str, kind: str, name: str, known: list[str]) -> str:
    """The text for a name that is not there: near names first, then all of them."""
    near = difflib.get_close_matches(name, known, n=3, cutoff=0.5)
    hint = f" Did you mean {' or '.join(repr(n) for n in near)}?" if near else ""
    return f"{problem}{hint}\n  known {kind} names: {', '.join(known) or 'none'}"


def find(name: str) -> Entry | None:
    """The entry called `name`, whatever its kind, or None."""
    return CATALOGUE.entries().get(name)


def all_names() -> list[str]:
    """Every known name over all kinds, sorted."""
    return sorted(CATALOGUE.entries())


def load_plugin(where: str) -> ModuleType:
    """Imports a plug-in, `path/to/file.py` or `dotted.module`, so that its components become known."""
    try:
        if where.endswith(".py"):
            return _import_file(Path(where))
        return importlib.import_module(where)
    except FileNotFoundError:
        raise ConfigError(f"plug-in '{where}': no such file. Give the path of a .py file or a module's name.") from None
    except ModuleNotFoundError as error:
        raise ConfigError(
            f"plug-in '{where}': {error}. Give the path of a .py file or the name of an installed module."
        ) from error
    except SyntaxError as error:
        raise ConfigError(f"plug-in '{where}': {error.filename}:{error.lineno}: {error.msg}") from error


def load_installed_plugins() -> None:
    """Imports the modules that installed packages name in the entry-point group `lmlab.plugins`."""
    for point in sorted(importlib.metadata.entry_points(group=PLUGIN_GROUP), key=lambda p: p.name):
        load_plugin(point.value)


def scan_installed_plugins() -> None:
    """Makes the installed plug-ins' names known from their source alone: for listing without importing jax."""
    for point in importlib.metadata.entry_points(group=PLUGIN_GROUP):
        found = importlib.util.find_spec(point.value)
        roots = [Path(p) for p in (found.submodule_search_locations or [])] if found else []
        files = [(f, root) for root in roots for f in sorted(root.rglob("*.py"))]
        if found and found.origin and not roots:
            files = [(Path(found.origin), Path(found.origin).parent)]
        for file, root in files:
            inner = file.relative_to(root).with_suffix("").parts if roots else ()
            module = ".".join((point.value, *inner)).removesuffix(".__init__")
            for entry in scan(file, module):
                CATALOGUE.add(entry)


def _import_file(path: Path) -> ModuleType:
    path = path.resolve()
    if not path.is_file():
        raise FileNotFoundError(path)
    for module in list(sys.modules.values()):
        if getattr(module, "__file__", None) == str(path):
            return module
    spec = importlib.util.spec_from_file_location(f"lmlab_plugin_{path.stem}_{abs(hash(str(path))):x}", path)
    assert spec and spec.loader, path
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # so that classes defined there can be pickled and re-imported
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[spec.name]
        raise
    return module


def _refuse_open_signature(kind: str, name: str, component: Callable[..., Any]) -> None:
    for parameter in inspect.signature(component).parameters.values():
        if parameter.kind in (parameter.VAR_KEYWORD, parameter.VAR_POSITIONAL):
            raise ConfigError(
                f"the {kind} '{name}' takes '{parameter}': its parameters are its configuration, "
                "so each must be named. Write them out."
            )


CATALOGUE = Catalogue()

models = Registry("model", CATALOGUE)
losses = Registry("loss", CATALOGUE)
datasets = Registry("dataset", CATALOGUE)
tokenizers = Registry("tokenizer", CATALOGUE)
optimizers = Registry("optimizer", CATALOGUE)
schedules = Registry("schedule", CATALOGUE)
partitioners = Registry("partitioner", CATALOGUE)
evaluators = Registry("evaluator", CATALOGUE)
hooks = Registry("hook", CATALOGUE)
writers = Registry("writer", CATALOGUE)
launchers = Registry("launcher", CATALOGUE)
samplers = Registry("sampler", CATALOGUE)
settings = Registry("settings", CATALOGUE)
"""Typed groups of a run's own settings: `experiment` (the root of every Spec), `checkpoints`, `finite_guard`."""

REGISTRIES: dict[str, Registry] = {
    registry.kind: registry
    for registry in (
        models, losses, datasets, tokenizers, optimizers, schedules, partitioners,
        evaluators, hooks, writers, launchers, samplers, settings,
    )
}  # fmt: skip

_KIND_OF_PLURAL = {
    "settings" if kind == "settings" else {"loss": "losses"}.get(kind, f"{kind}s"): kind for kind in REGISTRIES
}
