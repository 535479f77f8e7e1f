"""From a corpus's tokens back to text as it is printed, by the convention of that corpus."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from lmlab.data.transforms.fields import with_texts
from lmlab.registry import transforms


@dataclass(frozen=True)
class Convention:
    """How a corpus takes text apart.

    Args:
      spelled: tokens that stand for something else.
      left: tokens without a space before them.
      right: tokens without a space behind them.
      twice: marks that the corpus writes two times.
      escaped: characters that have a backslash before them.
    """

    spelled: Mapping[str, str]
    left: frozenset[str]
    right: frozenset[str]
    twice: frozenset[str] = frozenset()
    escaped: str = ""


_MARKS = frozenset([",", ".", ";", ":", "?", "!", ")", "]", "}", "''", "'"])
_OPEN = frozenset(["(", "[", "{", "``", "`", "$", "#"])
_CLITICS = frozenset(["n't", "'s", "'re", "'ve", "'ll", "'d", "'m", "%", "..."])

CONVENTIONS = {
    "brown": Convention({"``": '"', "''": '"', "`": "'"}, _MARKS, _OPEN - {"$", "#"}, frozenset("?!;")),
    "ptb": Convention(
        {
            "``": '"', "''": '"', "`": "'", "-LRB-": "(", "-RRB-": ")", "-LSB-": "[", "-RSB-": "]", "-LCB-": "{",
            "-RCB-": "}",
        },
        _MARKS | _CLITICS | {"-RRB-", "-RSB-", "-RCB-"},
        _OPEN | {"-LRB-", "-LSB-", "-LCB-"},
        escaped="/*",
    ),
}  # fmt: skip
"""brown: quotation marks as `` and '', punctuation apart, words whole, question and exclamation marks and semicolons
twice. ptb: the Penn Treebank's, which also takes contractions, possessives, $ and % apart and spells brackets."""


@transforms.register("detokenize")
@dataclass(frozen=True)
class Detokenize:
    """Text with its punctuation where print has it, from tokens with spaces between; line ends stay.

    Which side of a straight `'` is closed is not always known: it is taken for a closing one.

    Args:
      convention: the corpus whose tokens these are: `brown` or `ptb` (the Penn Treebank).
    """

    convention: Literal["brown", "ptb"] = "brown"

    def __call__(self, example: Any, rng: np.random.Generator) -> Any | None:
        """The example as text (tagged words stay as they are, each being a token)."""
        return with_texts(example, lambda text: detokenized(text, CONVENTIONS[self.convention]), "detokenize")


def detokenized(text: str, convention: Convention) -> str:
    """Tokens, a sentence a line, as text.

    Example (brown): "`` Go ( now ) ! ! '' he said ." → '"Go (now)!" he said.'
    """
    return "\n".join(_line(line.split(), convention) for line in text.split("\n"))


def _line(tokens: list[str], convention: Convention) -> str:
    parts: list[str] = []
    before = ""
    for token in tokens:
        if token == before and token in convention.twice:
            before = ""  # of four marks, two stay
            continue
        apart = bool(parts) and token not in convention.left and before not in convention.right
        word = convention.spelled.get(token, token)
        for character in convention.escaped:
            word = word.replace(f"\\{character}", character)
        parts.append(f" {word}" if apart else word)
        before = token
    return "".join(parts)
