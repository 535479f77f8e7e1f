"""gin text to statements: what is bound, to which value, and where that is written. Knows nothing of components.

gin's own parser reads the text; nothing of gin's global state is used. The order of the statements is the order
of precedence: a later one wins over an earlier one with the same key.
"""

from __future__ import annotations

import difflib
import os
import re
import tokenize
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from gin import config_parser

from lmlab.errors import ConfigError

ROOT = Path(__file__).resolve().parent.parent.parent
"""The folder that holds the lmlab package: the root of a clone."""

COMMAND_LINE = "command line"
AXES = "an axis of the sweep"

_STATEMENT = "Statements: component.parameter = value, MACRO = value, include 'file.gin', import module."
_VALUE = "Values: a number, a 'string' in quotes, True, False, None, @component, %MACRO, a list or a dict of these."

GIN_REQUIRED = "gin.REQUIRED"


@dataclass(frozen=True)
class Reference:
    """`@scope/name`, as written."""

    scope: str
    selector: str

    def __str__(self) -> str:
        return f"@{self.scope}/{self.selector}" if self.scope else f"@{self.selector}"


@dataclass(frozen=True)
class Macro:
    """`%NAME`, as written."""

    name: str

    def __str__(self) -> str:
        return f"%{self.name}"


@dataclass(frozen=True)
class Items:
    """`{key: value, ...}`, as written: a tuple of pairs, so that no repeated key is lost."""

    pairs: tuple[tuple[Any, Any], ...]


@dataclass(frozen=True)
class Source:
    """One file, or one string of the command line."""

    name: str
    includes: tuple[Source, ...] = ()
    """The sources that this one was included from, outermost first."""

    def place(self, line: int) -> str:
        """`file:line`, or what is no file."""
        return self.name if self.name in (COMMAND_LINE, AXES) else f"{self.name}:{line}"


@dataclass(frozen=True)
class Binding:
    """`scope/selector.parameter = value`; a macro's definition has no parameter."""

    scope: str
    selector: str
    parameter: str
    value: Any
    place: str
    source: Source = field(compare=False, repr=False)
    order: int = 0
    """Its number among all statements: the higher one of two with one key wins."""
    written: str = ""
    """The selector as written, where it names a kind too (`models.gpt`)."""

    @property
    def key(self) -> tuple[str, str, str]:
        """What a later statement must repeat to override this one."""
        return self.scope, self.selector, self.parameter

    def __str__(self) -> str:
        scope = f"{self.scope}/" if self.scope else ""
        return f"{scope}{self.selector}.{self.parameter}" if self.parameter else f"{scope}{self.selector}"


@dataclass
class Statements:
    """All statements of a configuration, in order of precedence, includes already followed."""

    bindings: list[Binding] = field(default_factory=list)
    imports: list[tuple[str, str]] = field(default_factory=list)
    """Plug-in modules named by `import`, each with its place."""
    read: set[Path] = field(default_factory=set, repr=False)


def read_statements(files: Sequence[str], overrides: Sequence[str] = ()) -> Statements:
    """Reads configuration files in order, then the overrides of the command line.

    A file is read once, where it is first included. A file is looked for beside the one that includes it, in the
    working directory, and in the folder that holds the lmlab package.
    """
    found = Statements()
    for name in files:
        _read_file(name, None, (), found)
    for text in overrides:
        _read_text(text, Source(COMMAND_LINE), None, found)
    return found


def with_axes(statements: Statements, bound: Mapping[str, str]) -> Statements:
    """The statements and, behind them, `key = value` of each pair; nothing is taken from the statements.

    Raises:
      ConfigError: a pair is more, or less, than one binding.
    """
    found = Statements(list(statements.bindings), list(statements.imports), set(statements.read))
    for key, value in bound.items():
        before = len(found.bindings)
        _read_text(f"{key} = {value}", Source(AXES), None, found)
        if len(found.bindings) != before + 1 or str(found.bindings[-1]) != key:
            raise ConfigError(
                f"{AXES}: '{key}' is no key of a configuration, such as gpt.layers or a/adamw.weight_decay."
            )
    return found


def _read_file(name: str, beside: Path | None, includes: tuple[Source, ...], found: Statements, by: str = "") -> None:
    path = _locate(name, beside, by)
    if any(_same_file(source.name, path) for source in includes):
        circle = " -> ".join([*(source.name for source in includes), _shown(path)])
        raise ConfigError(f"{by}includes itself in a circle: {circle}. Take one of these includes out.")
    if path.resolve() in found.read:
        return
    found.read.add(path.resolve())
    _read_text(_decoded(path, by), Source(_shown(path), includes), path.parent, found)


def _read_text(text: str, source: Source, folder: Path | None, found: Statements) -> None:
    for statement in _parse(text, source):
        place = source.place(statement.location.line_num)
        match statement:
            case config_parser.BindingStatement():
                key, order = (statement.scope, statement.selector, statement.arg_name), len(found.bindings)
                found.bindings.append(Binding(*key, statement.value, place, source, order))
            case config_parser.IncludeStatement():
                _read_file(statement.filename, folder, (*source.includes, source), found, by=f"{place}: ")
            case config_parser.ImportStatement():
                found.imports.append((_plugin_name(statement, place), place))


def _plugin_name(statement: config_parser.ImportStatement, place: str) -> str:
    if statement.module.startswith("__gin__"):
        raise ConfigError(
            f"{place}: gin's dynamic registration is not supported. Name components by what they are registered "
            "as (lmlab list), and take this line out."
        )
    if statement.alias:
        raise ConfigError(f"{place}: an import with 'as' renames nothing here. Write: import {statement.module}")
    return statement.module


# --- Files ----------------------------------------------------------------------------------------------------


def _locate(name: str, beside: Path | None, by: str) -> Path:
    folders = [folder for folder in (beside, Path(), ROOT) if folder is not None]
    for folder in folders:
        if (folder / name).exists():
            return folder / name
    near = next(filter(None, (_near_file(folder / name) for folder in folders)), "")
    looked = ", ".join(dict.fromkeys(str(folder.resolve()) for folder in folders))
    raise ConfigError(f"{by}no configuration file '{name}'.{near}\n  looked in: {looked}")


def _near_file(path: Path) -> str:
    if not path.parent.is_dir():
        return ""
    near = difflib.get_close_matches(path.name, [p.name for p in path.parent.glob("*.gin")], n=3)
    return f" Did you mean {' or '.join(repr(_shown(path.parent / n)) for n in near)}?" if near else ""


def _decoded(path: Path, by: str) -> str:
    try:
        data = path.read_bytes()
        return data.decode("utf-8-sig").replace("\r\n", "\n")
    except UnicodeDecodeError as error:
        line = data[: error.start].count(b"\n") + 1
        raise ConfigError(
            f"{_shown(path)}:{line}: not UTF-8 (byte {data[error.start]:#04x} at offset {error.start}). "
            "Is it a gin file? Save it as UTF-8."
        ) from None
    except OSError as error:
        raise ConfigError(f"{by}cannot read {_shown(path)}: {error.strerror}. Check the path and its rights.") from None


def _shown(path: Path) -> str:
    """The path as people write it: relative to the working directory where it lies below that."""
    relative = os.path.relpath(path)
    return str(path) if relative.startswith("..") else relative


def _same_file(name: str, path: Path) -> bool:
    return name not in (COMMAND_LINE, AXES) and Path(name).resolve() == path.resolve()


# --- Text -----------------------------------------------------------------------------------------------------


class _Delegate(config_parser.ParserDelegate):
    """Keeps references and macros as they are written."""

    def configurable_reference(self, scoped_configurable_name: str, evaluate: bool) -> Reference:
        # `@name` and `@name()` mean the same: lmlab decides when a component is built.
        scope, _, selector = scoped_configurable_name.rpartition("/")
        return Reference(scope, selector)

    def macro(self, macro_name: str) -> Macro:
        return Macro(macro_name)


class _Key:
    """A dict's key while gin builds the dict: equal to no other, so that a repeated key is still there afterwards."""

    def __init__(self, value: Any) -> None:
        self.value = value


class _Parser(config_parser.ConfigParser):
    """gin's parser, to which `;` ends a statement on the command line, and which keeps every pair of a dict."""

    _current_token: Any

    def __init__(self, text: str, semicolons: bool) -> None:
        self._semicolons = semicolons
        super().__init__(text, _Delegate())

    def _advance_one_token(self) -> None:
        ended = getattr(self, "_current_token", None)
        super()._advance_one_token()
        token = self._current_token
        if self._semicolons and token.type == tokenize.OP and token.string == ";":
            self._current_token = token._replace(type=tokenize.NEWLINE)
        if ended is not None and ended.string == ";" and self._current_token.type == tokenize.NEWLINE:
            self._current_token = self._current_token._replace(type=tokenize.NL)  # an empty statement

    def _parse_dict_item(self) -> tuple[_Key, Any]:
        key, value = super()._parse_dict_item()
        return _Key(key), value


def _parse(text: str, source: Source) -> Iterator[Any]:
    """gin's statements; every way in which its parser fails becomes one ConfigError with file and line."""
    parser = None
    try:
        parser = _Parser(text, semicolons=source.name == COMMAND_LINE)
        while (statement := parser.parse_statement()) is not None:
            if isinstance(statement, config_parser.BindingStatement):
                statement = statement._replace(value=_kept(statement.value))
            yield statement
    except SyntaxError as error:
        raise _syntax_error(source, text, error.lineno, error.msg) from None
    except tokenize.TokenError as error:  # Python 3.12 and newer: ("message", (line, column)), no file name
        message, (line, _) = error.args
        raise _syntax_error(source, text, line, message) from None
    except StopIteration:
        raise _syntax_error(source, text, text.count("\n") + 1, "the text ends within a statement") from None
    except RecursionError:
        raise _syntax_error(source, text, _line_of(parser), "nested too deeply") from None
    except (ValueError, TypeError, AssertionError) as error:  # gin's parser lets these through for odd selectors
        raise _syntax_error(source, text, _line_of(parser), str(error)) from None


def _kept(value: Any) -> Any:
    """A parsed value with its lists as tuples and its dicts as pairs."""
    if isinstance(value, list | tuple):
        return tuple(_kept(item) for item in value)
    if isinstance(value, dict):
        return Items(tuple((_kept(key.value), _kept(item)) for key, item in value.items()))
    return value


def _line_of(parser: _Parser | None) -> int:
    return parser.current_token.start[0] if parser and parser.current_token else 1


def _syntax_error(source: Source, text: str, line: int | None, message: str) -> ConfigError:
    lines = text.split("\n")
    line = min(line or 1, len(lines))
    problem = message.strip()
    if word := re.search(r"Failed to parse token '(.*)'$", problem, re.DOTALL):
        problem = f"{word[1]} is not a value."
        if word[1].isidentifier():
            problem += f" Write @{word[1]} for a component, %{word[1]} for a macro, '{word[1]}' for a string."
    hint = _STATEMENT if problem.startswith(("Couldn't", "Unexpected", "Malformatted")) else _VALUE
    return ConfigError(f"{source.place(line)}: cannot read this: {problem}\n    {lines[line - 1].strip()}\n  {hint}")
