"""Names to components: one `Registry` for every kind, and one catalogue in which a name is unique over all kinds.

A component is a class or a function with a decorator above it:

    @models.register("gpt")
    class GPT(nnx.Module): ...

Built-in components are found by reading the decorators out of lmlab's own source files, without importing
them, so that listing names costs milliseconds and needs neither jax nor flax; a component's module is imported
when the component is first asked for. Installed plug-ins (entry-point group `lmlab.plugins`) are read in the same
way; those named by `--plugin` or by gin's `import` come through `load_plugin` and are imported then.
"""

from __future__ import annotations

import ast
import difflib
import functools
import hashlib
import importlib
import importlib.metadata
import importlib.util
import inspect
import os
import re
import sys
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any, TypeVar

from lmlab.errors import ConfigError, LmlabError

Component = TypeVar("Component", bound=Callable[..., Any])

PLUGIN_GROUP = "lmlab.plugins"
_FILE_PREFIX = "lmlab_plugin_"
"""Begins the module name of a plug-in that is a file."""

_DECORATOR = re.compile(r"^@[\w.]+\.register\(", re.MULTILINE)


@dataclass(frozen=True)
class Entry:
    """Where a component is: enough to show it, and to import it when it is used."""

    kind: str
    name: str
    module: str
    qualname: str
    file: str
    line: int
    doc: str = ""
    attributes: frozenset[str] = frozenset()
    """Names that the body of the class sets."""

    @property
    def place(self) -> str:
        """`file:line` of the definition, relative to the working directory where that is shorter."""
        here = os.path.relpath(self.file) if Path(self.file).is_absolute() else self.file
        return f"{self.file if here.startswith('..') else here}:{self.line}"

    @functools.cached_property
    def component(self) -> Callable[..., Any]:
        """The class or function itself; imports its module on first use."""
        try:
            found: Any = importlib.import_module(self.module)
        except LmlabError:
            raise
        except Exception as error:
            raise ConfigError(_failure(f"the {self.kind} '{self.name}' ({self.place})", error)) from error
        for part in self.qualname.split("."):
            found = getattr(found, part)
        return found

    def attribute(self, name: str) -> Any:
        """An attribute of the class, or None; its module is imported only if the body of the class sets it."""
        wanted = "component" in self.__dict__ or name in self.attributes
        return getattr(self.component, name, None) if wanted else None

    def summary(self) -> str:
        """The first line of the component's docstring."""
        return self.doc.strip().split("\n")[0]

    def same_definition(self, other: Entry) -> bool:
        """Whether both are the same piece of source, however it was found."""
        if (self.kind, self.qualname) != (other.kind, other.qualname):
            return False
        typed_again = self.module == other.module == "__main__"  # the cell of a notebook has a new file each time
        return typed_again or os.path.realpath(self.file) == os.path.realpath(other.file)


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
        if known and not known.same_definition(entry):
            raise ConfigError(
                f"the name '{entry.name}' is registered twice: as {article(known.kind)} at {known.place}, "
                f"and as {article(entry.kind)} at {entry.place}.\n  Names are unique over all kinds: rename one."
            )
        if not known or "component" in entry.__dict__:  # the newest object counts where a module was loaded again
            self._entries[entry.name] = entry

    def forget(self, module: str) -> None:
        """Drops what a module registered before it failed, so that the repaired module can be loaded."""
        for name in [name for name, entry in self._entries.items() if entry.module == module]:
            del self._entries[name]


def scan(file: Path, module: str) -> Iterator[Entry]:
    """The components that a source file registers by a decorator at its top level, without importing it."""
    try:
        text = file.read_text(encoding="utf-8")
        body = ast.parse(text, str(file)).body if _DECORATOR.search(text) else []
    except (SyntaxError, UnicodeDecodeError) as error:
        raise ConfigError(_failure(f"the module '{module}' ({file})", error)) from error
    for node in body:
        if not isinstance(node, ast.ClassDef | ast.FunctionDef):
            continue
        for decorator in node.decorator_list:
            match decorator:
                case ast.Call(
                    func=ast.Attribute(value=ast.Name(id=plural) | ast.Attribute(attr=plural), attr="register"),
                    args=[ast.Constant(value=str(name))],
                ) if plural in KIND_OF_PLURAL:
                    doc = ast.get_docstring(node) or ""
                    kind, found = KIND_OF_PLURAL[plural], _attributes(node)
                    yield Entry(kind, name, module, node.name, str(file), node.lineno, doc, found)


def _attributes(node: ast.ClassDef | ast.FunctionDef) -> frozenset[str]:
    """The names that the body of a class sets: `a = 1`, `a: int = 1`."""
    names: set[str] = set()
    for statement in node.body if isinstance(node, ast.ClassDef) else ():
        match statement:
            case ast.AnnAssign(target=ast.Name(id=name), value=value) if value is not None:
                names.add(name)
            case ast.Assign(targets=targets):
                names.update(target.id for target in targets if isinstance(target, ast.Name))
    return frozenset(names)


class Registry:
    """The components of one kind, by name."""

    def __init__(self, kind: str, catalogue: Catalogue) -> None:
        self.kind = kind
        self._catalogue = catalogue

    def register(self, name: str) -> Callable[[Component], Component]:
        """A decorator that makes a class or function known as `name`; refuses `**kwargs` and a taken name."""

        def decorate(component: Component) -> Component:
            entry = _entry_of(self.kind, name, component)
            _refuse_open_signature(entry, component)
            self._catalogue.add(entry)
            return component

        return decorate

    def names(self) -> list[str]:
        """All names of this kind, sorted."""
        return sorted(name for name, entry in self._catalogue.entries().items() if entry.kind == self.kind)

    def entry(self, name: str) -> Entry:
        """The entry called `name`, or a ConfigError with near names and the whole list."""
        entry = self._catalogue.entries().get(name)
        if entry is None or entry.kind != self.kind:
            other = f" ('{name}' is {article(entry.kind)}.)" if entry else ""
            raise ConfigError(unknown(f"no {self.kind} named '{name}'.{other}", self.kind, name, self.names()))
        return entry

    def get(self, name: str) -> Callable[..., Any]:
        """The component called `name`; imports its module."""
        return self.entry(name).component


def signature(component: Callable[..., Any]) -> inspect.Signature:
    """The parameters that calling `component` takes.

    For a class, those of its `__init__`: `inspect.signature(cls)` would see the metaclass of nnx modules instead.
    """
    if not inspect.isclass(component):
        return inspect.signature(component)
    make: Any = component.__init__
    if make is object.__init__:
        return inspect.Signature() if component.__new__ is object.__new__ else inspect.signature(component)
    found = inspect.signature(make)
    return found.replace(parameters=list(found.parameters.values())[1:])


def unknown(problem: str, kind: str, name: str, known: list[str]) -> str:
    """The text for a name that is not there: near names first, then all of them."""
    near = near_names(name, known)
    return f"{problem}{near}\n  known {kind} names: {', '.join(known) or 'none'}"


def article(words: str) -> str:
    """`a model`, `an evaluator`."""
    return f"{'an' if words[0].lower() in 'aeiou' else 'a'} {words}"


def name_of(component: object) -> str:
    """The name under which an object's class is registered, else the class's own."""
    kind = type(component)
    for entry in CATALOGUE.entries().values():
        if (entry.module, entry.qualname) == (kind.__module__, kind.__qualname__):
            return entry.name
    return kind.__name__


def near_names(name: str, known: list[str]) -> str:
    """` Did you mean 'gpt'?`, or nothing where no known name is near."""
    lower = {k.lower(): k for k in known}
    near = [lower[n] for n in difflib.get_close_matches(name.lower(), lower, n=3, cutoff=0.6)]
    return f" Did you mean {' or '.join(repr(n) for n in near)}?" if near else ""


def find(name: str) -> Entry | None:
    """The entry called `name`, whatever its kind, or None."""
    return CATALOGUE.entries().get(name)


def all_names() -> list[str]:
    """Every known name over all kinds, sorted."""
    return sorted(CATALOGUE.entries())


def load_plugin(where: str) -> ModuleType:
    """Imports a plug-in, `path/to/file.py` or `dotted.module`, so that its components become known.

    A dotted name that is no installed module is also looked for as a file from the working directory.
    """
    file = Path(where) if where.endswith(".py") else Path(*where.split(".")).with_suffix(".py")
    try:
        if not where.endswith(".py") and (importlib.util.find_spec(where.split(".")[0]) or not file.is_file()):
            return importlib.import_module(where)
        return _import_file(file)
    except FileNotFoundError as error:
        if error.filename != str(file.resolve()):
            raise ConfigError(_failure(f"plug-in '{where}'", error)) from error
        raise ConfigError(f"plug-in '{where}': no such file. Give the path of a .py file or a module's name.") from None
    except ModuleNotFoundError as error:
        if error.name and f"{where}.".startswith(f"{error.name}."):
            raise ConfigError(
                f"plug-in '{where}': there is no module '{error.name}'. "
                "Give the path of a .py file or the name of an installed module."
            ) from None
        raise ConfigError(_failure(f"plug-in '{where}'", error)) from error
    except LmlabError:
        raise
    except Exception as error:
        raise ConfigError(_failure(f"plug-in '{where}'", error)) from error


def plugin_name(plugin: ModuleType) -> str:
    """What `load_plugin` takes to load this plug-in again, from any working directory."""
    return str(plugin.__file__) if plugin.__name__.startswith(_FILE_PREFIX) else plugin.__name__


def load_installed_plugins() -> None:
    """Imports the modules that installed packages name in the entry-point group `lmlab.plugins`."""
    for point in sorted(importlib.metadata.entry_points(group=PLUGIN_GROUP), key=lambda p: p.name):
        load_plugin(point.module)


def scan_installed_plugins() -> None:
    """Makes the installed plug-ins' names known from their source alone, without importing jax (or them)."""
    for entry in _installed_entries(tuple(sys.path)):
        CATALOGUE.add(entry)


@functools.cache
def _installed_entries(path: tuple[str, ...]) -> tuple[Entry, ...]:
    """What the plug-ins installed on a `sys.path` register. Kept: reading takes 10 ms, and sweeps ask often."""
    entries: list[Entry] = []
    for point in importlib.metadata.entry_points(group=PLUGIN_GROUP):
        try:
            found = importlib.util.find_spec(point.module)
        except ModuleNotFoundError:
            found = None
        if found is None:
            raise ConfigError(
                f"the installed package behind the plug-in '{point.name}' has no module '{point.module}'. "
                "Reinstall it, or uninstall it."
            )
        entries += (entry for file, module in _sources(point.module, found) for entry in scan(file, module))
    return tuple(entries)


def _sources(name: str, found: importlib.machinery.ModuleSpec) -> Iterator[tuple[Path, str]]:
    """The source files of a module or of all of a package, with their modules' names."""
    for root in map(Path, found.submodule_search_locations or ()):
        for file in sorted(root.rglob("*.py")):
            module = ".".join((name, *file.relative_to(root).with_suffix("").parts))
            yield file, module.removesuffix(".__init__")
    if not found.submodule_search_locations and found.origin:
        yield Path(found.origin), name


def _import_file(path: Path) -> ModuleType:
    path = path.resolve()
    if not path.is_file():
        raise FileNotFoundError(2, "No such file", str(path))
    for module in list(sys.modules.values()):
        if getattr(module, "__file__", None) == str(path):
            return module
    # The same file has the same module name in every process, so that its objects can be pickled between them.
    name = f"{_FILE_PREFIX}{path.stem}_{hashlib.sha256(str(path).encode()).hexdigest()[:12]}"
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec and spec.loader, path
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        CATALOGUE.forget(name)
        raise
    return module


def _failure(what: str, error: Exception) -> str:
    """One line for an import that raised: what, which error, and the line that raised it."""
    if isinstance(error, SyntaxError):
        return f"{what} is not valid Python: {error.filename}:{error.lineno}: {error.msg}"
    frames = [f for f in traceback.extract_tb(error.__traceback__) if not f.filename.startswith("<frozen")]
    place = f" ({frames[-1].filename}:{frames[-1].lineno})" if frames else ""
    return f"{what} cannot be imported: {type(error).__name__}: {error}{place}"


def _entry_of(kind: str, name: str, component: Callable[..., Any]) -> Entry:
    try:
        file, line = inspect.getsourcefile(component) or "?", inspect.getsourcelines(component)[1]
    except (OSError, TypeError):  # typed into an interactive session: there is no source
        file, line = f"<{component.__module__}>", 0
    entry = Entry(kind, name, component.__module__, component.__qualname__, file, line, component.__doc__ or "")
    entry.__dict__["component"] = component  # it is here: nothing is to be imported
    return entry


def _refuse_open_signature(entry: Entry, component: Callable[..., Any]) -> None:
    for parameter in signature(component).parameters.values():
        if parameter.kind in (parameter.VAR_KEYWORD, parameter.VAR_POSITIONAL, parameter.POSITIONAL_ONLY):
            raise ConfigError(
                f"the {entry.kind} '{entry.name}' ({entry.place}) takes '{parameter}': its parameters are its "
                "configuration, so each must have a name to bind. Write them out."
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
transforms = Registry("transform", CATALOGUE)
adapters = Registry("adapter", CATALOGUE)
settings = Registry("settings", CATALOGUE)
"""Typed groups of a run's own settings: `experiment` (the root of every Spec), `checkpoints`, `finite_guard`."""

REGISTRIES: dict[str, Registry] = {
    registry.kind: registry
    for registry in (
        models, losses, datasets, tokenizers, optimizers, schedules, partitioners,
        evaluators, hooks, writers, launchers, samplers, transforms, adapters, settings,
    )
}  # fmt: skip

KIND_OF_PLURAL = {
    "settings" if kind == "settings" else {"loss": "losses"}.get(kind, f"{kind}s"): kind for kind in REGISTRIES
}
"""`{"models": "model", "losses": "loss", ...}`: the names of the registries above."""
