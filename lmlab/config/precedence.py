"""Which of several statements about one key wins, and which pairs of statements are refused."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from typing import Any

from lmlab.config.text import Binding, Items, Macro, Reference, Statements
from lmlab.config.types import spell_value
from lmlab.errors import ConfigError
from lmlab.registry import KIND_OF_PLURAL, REGISTRIES

_SHOWN = 8
"""Problems shown at once: about a screen."""


def refuse(problems: Iterable[str]) -> None:
    """One ConfigError with all the problems, if there are any."""
    found = list(dict.fromkeys(problems))
    if found:
        more = [f"... and {len(found) - _SHOWN} more problems"] if len(found) > _SHOWN else []
        raise ConfigError("\n".join([*found[:_SHOWN], *more]))


@dataclass
class Bindings:
    """The statement that won for each key, and those that lost, each with the one that it lost to."""

    winners: dict[tuple[str, str, str], Binding] = field(default_factory=dict)
    losers: list[tuple[Binding, Binding]] = field(default_factory=list)

    def macros(self) -> list[str]:
        """The names of all macros that are set, sorted."""
        return sorted(str(binding) for binding in self.winners.values() if not binding.parameter)


def settle(statements: Statements) -> Bindings:
    """Decides for every key which statement wins; ConfigError where one file says two things."""
    found, problems = Bindings(), []
    for written in statements.bindings:
        binding = replace(written, selector=split_kind(written.selector)[1], written=written.selector)
        if earlier := found.winners.get(binding.key):
            found.losers.append((earlier, binding))
        for other in (b for b, _ in found.losers if b.key == binding.key):
            if other.source is binding.source:
                problems.append(
                    f"{binding.place}: '{binding}' is bound twice in one "
                    f"{'string' if other.place == binding.place else 'file'}, first at {other.place} "
                    f"({spell_raw(other.value)}), then here ({spell_raw(binding.value)}). Keep one of them."
                )
            elif other.source in binding.source.includes:
                problems.append(
                    f"{other.place}: '{binding} = {spell_raw(other.value)}' is undone by a file that is included below "
                    f"it ({binding.place}: {spell_raw(binding.value)}). Put the include above it, or take it out."
                )
        found.winners[binding.key] = binding
    refuse(problems)
    return found


def split_kind(selector: str) -> tuple[str | None, str]:
    """Kind and name in a selector: (`model`, `gpt`) of `models.gpt` and `model.gpt`, (None, `gpt`) of `gpt`."""
    word, dot, name = selector.partition(".")
    kind = KIND_OF_PLURAL.get(word) or (word if word in REGISTRIES else None)
    return (kind, name) if dot and kind else (None, selector)


def spell_raw(value: Any) -> str:
    """A value as it was written."""
    match value:
        case Reference() | Macro():
            return str(value)
        case tuple():
            return f"[{', '.join(map(spell_raw, value))}]"
        case Items():
            return f"{{{', '.join(f'{spell_raw(key)}: {spell_raw(item)}' for key, item in value.pairs)}}}"
    return spell_value(value)
