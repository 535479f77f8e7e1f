"""Bindings that change nothing, and why: a configuration must not say what the run does not do."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from lmlab.config.text import Binding, Items, Macro
from lmlab.config.tree import Tree
from lmlab.config.types import component_targets, spell_value
from lmlab.registry import find


def unconsumed(tree: Tree, root: str) -> Iterator[str]:
    """One message for each winning statement that no part of the tree took."""
    for binding in idle(tree):
        yield why_idle(tree, binding, root)


def idle(tree: Tree) -> Iterator[Binding]:
    """The winning statements that no part of the tree took."""
    for key, binding in tree.bindings.winners.items():
        if key not in tree.consumed and (binding.parameter or not _undone_with_its_use(tree, binding)):
            yield binding


def why_idle(tree: Tree, binding: Binding, root: str) -> str:
    """What is wrong with a statement that no part of the tree took."""
    if binding.parameter:
        return f"{binding.place}: '{binding}' changes nothing: {_reason(tree, binding, root)}"
    return f"{binding.place}: nothing uses the macro '{binding}'.{_macro_hint(tree, binding)}"


def _reason(tree: Tree, binding: Binding, root: str) -> str:
    name = binding.selector
    used = tree.scopes.get(name)
    if used is None:
        return f"{name} is not used{_instead(tree, name, root)}. Take the line out, or use @{name}."
    if not binding.scope or any(f"{scope}/".startswith(f"{binding.scope}/") for scope in used):
        return f"every {name} that is used has its own {binding.parameter}, bound in its scope. Take the line out."
    scopes = ", ".join(f"@{scope}/{name}" if scope else f"@{name}" for scope in sorted(used))
    return f"no {name} is used in the scope '{binding.scope}', only {scopes}. Write @{binding.scope}/{name} there."


def _instead(tree: Tree, name: str, root: str) -> str:
    """`: experiment.model is @lstm (command line)`: what stands where the component could have stood."""
    entry = find(name)
    assert entry, name
    places = [
        use for use in tree.uses
        if any(t.kind and t.accepts(entry.kind, entry.name) for t in component_targets(use.parameter.annotation))
    ]  # fmt: skip
    if places:
        use = min(places, key=lambda use: use.path.count("."))
        return f": {root}.{use.path} is {spell_value(use.value)} ({use.place})"
    return f": nothing in @{root} holds a {entry.kind}"


def _undone_with_its_use(tree: Tree, macro: Binding) -> bool:
    """Whether the only statements that used the macro were overridden by later ones, which then undo the macro too."""
    return any(
        winner.order > macro.order and str(macro) in macros_in(loser.value) for loser, winner in tree.bindings.losers
    ) or any(
        other is not macro and not other.parameter and str(macro) in macros_in(other.value)
        and other.key not in tree.consumed and _undone_with_its_use(tree, other)
        for other in tree.bindings.winners.values()
    )  # fmt: skip


def macros_in(value: Any) -> set[str]:
    """The names of the macros in a value as it was written."""
    match value:
        case Macro():
            return {value.name}
        case tuple():
            return {name for item in value for name in macros_in(item)}
        case Items():
            return {name for pair in value.pairs for item in pair for name in macros_in(item)}
    return set()


def _macro_hint(tree: Tree, macro: Binding) -> str:
    """What may have been meant by `layers = 4` or `gpt = 4`, which gin reads as macros."""
    name = macro.selector
    owners = dict.fromkeys(use.component for use in tree.uses if use.parameter.name == name)
    if owners:
        return f" Did you mean {' or '.join(repr(f'{owner}.{name}') for owner in list(owners)[:3])}?"
    if find(name):
        return f" Did you mean a parameter of it, '{name}.parameter = ...', or '... = @{name}', to use it?"
    return f" Write %{macro} as a value, or take the line out."
