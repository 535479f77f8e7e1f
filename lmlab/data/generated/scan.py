"""SCAN: commands of a phrase-structure grammar, and the actions that they mean (Lake & Baroni 2018)."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import numpy as np

from lmlab.contracts import TextPair
from lmlab.data.corpus import split_of
from lmlab.data.generated.drawing import check_split, fingerprint
from lmlab.errors import DataError
from lmlab.ranges import ProperFraction, Seed
from lmlab.registry import datasets

Actions = tuple[str, ...]
Pair = tuple[str, Actions]  # a command and what it means

TURNS = {"left": "I_TURN_LEFT", "right": "I_TURN_RIGHT"}
PRIMITIVES = {"walk": "I_WALK", "look": "I_LOOK", "run": "I_RUN", "jump": "I_JUMP"}
LONGEST_TRAINED = 22  # actions, in the split by length
REPEATED = {"jump": 1467, "turn left": 2189}
"""How often the primitive stands in the published training files, a tenth of their lines."""

SplitBy = Literal[
    "simple", "length", "addprim_jump", "addprim_turn_left",
    "around_right", "opposite_right", "right", "jump_around_right",
]  # fmt: skip


@datasets.register("scan")
@dataclass(frozen=True, kw_only=True)
class Scan:
    """SCAN, commands such as `jump twice after turn left` and their actions (Lake & Baroni 2018, arXiv:1711.00350).

    All 20,910 commands of the grammar, of 13 words and at most 9 words long, with 1 to 48 of 6 actions; BSD licence of
    the published files, which these equal (but for the random split) and which are not needed. Yields `TextPair`: the
    command, and the actions with spaces between. Training and test pairs by `split_by`:

      simple             16,728 / 4,182   by chance; the published files are one draw
      length             16,990 / 3,920   at most 22 actions / more
      addprim_jump       14,670 / 7,706   without `jump` but for itself 1,467 times / the others with `jump`
      addprim_turn_left  21,890 / 1,208   the same for `turn left`, 2,189 times
      around_right       15,225 / 4,476   without `u around right` / with, u one of walk, look, run and jump
      opposite_right     15,225 / 4,476   the same for `u opposite right`
      right              15,225 / 4,476   the same for `u right`
      jump_around_right  18,528 / 1,173   the same for `jump around right`

    The last four (Loula et al. 2018, arXiv:1807.07545) leave out the 1,209 commands in which `turn` stands before the
    phrase. The papers have no validation split: it is taken out of the training pairs, whole commands by the md5 of
    their text, never the primitive that is repeated. Training and validation together are the published training
    pairs; with `valid_share` 0 the training split alone is.

    Args:
      split_by: which commands are tested.
      valid_share: part of the training commands that becomes the validation split.
      train_share: for `simple`, part of all commands that is not tested; 0.01, 0.02, 0.04, ... in the paper's figure 2.
      seed: for `simple`, of the drawing.
    """

    example: ClassVar[type] = TextPair

    split_by: SplitBy = "simple"
    valid_share: ProperFraction = 0.05
    train_share: ProperFraction = 0.8
    seed: Seed = 0

    def split(self, name: str) -> Sequence[TextPair]:
        """The pairs of `train`, `valid` or `test`; DataError where there are none."""
        check_split(self, name)
        if not self._splits[name]:
            share = "train_share" if name == "train" else "valid_share"
            raise DataError(f"scan: no commands in the split '{name}'. Set a larger scan.{share}.")
        return self._splits[name]

    def fingerprint(self) -> dict[str, Any]:
        """The parameters, and the length and first pairs of every split."""
        return fingerprint(self, self._splits)

    def known(self) -> dict[str, float]:
        """What is counted and what can be reached: every command has one meaning."""
        return {
            "optimum/exact_match": 1.0,
            "optimum/nats_per_sequence": 0.0,
            "count/commands": float(len(commands())),
            **{f"count/{name}": float(len(pairs)) for name, pairs in self._splits.items()},
        }

    @functools.cached_property
    def _splits(self) -> dict[str, tuple[TextPair, ...]]:
        train, test = self._published()
        splits: dict[str, list[Pair]] = {"train": [], "valid": [], "test": test}
        for pair in train:
            held_out = 0.0 if pair[0] == self._primitive else self.valid_share
            splits[split_of(pair[0], held_out, 0.0)].append(pair)
        return {
            name: tuple(
                TextPair(text, " ".join(actions), f"scan/{name}/{i}") for i, (text, actions) in enumerate(pairs)
            )
            for name, pairs in splits.items()
        }

    def _published(self) -> tuple[list[Pair], list[Pair]]:
        """Training and test pairs, as they are published."""
        pairs = commands()
        if self.split_by == "simple":
            order = np.random.default_rng(self.seed).permutation(len(pairs))
            edge = round(len(pairs) * self.train_share)
            return [pairs[i] for i in order[:edge]], [pairs[i] for i in order[edge:]]
        if self.split_by == "length":
            return _parted(pairs, lambda _, actions: len(actions) > LONGEST_TRAINED)
        if primitive := self._primitive:
            train, test = _parted(pairs, lambda text, _: primitive in text and text != primitive)
            return train + [pair for pair in train if pair[0] == primitive] * (REPEATED[primitive] - 1), test
        template = self.split_by.replace("_", " ")
        phrases = (template,) if template.startswith("jump") else tuple(f"{u} {template}" for u in PRIMITIVES)
        excluded = f"turn {template.removeprefix('jump ')}"
        kept = [pair for pair in pairs if excluded not in pair[0]]
        return _parted(kept, lambda text, _: any(phrase in text for phrase in phrases))

    @property
    def _primitive(self) -> str:
        """The command that is trained on by itself only; empty in the other splits."""
        prefix = "addprim_"
        return self.split_by.removeprefix(prefix).replace("_", " ") if self.split_by.startswith(prefix) else ""


def _parted(pairs: list[Pair], tested: Callable[[str, Actions], bool]) -> tuple[list[Pair], list[Pair]]:
    return [pair for pair in pairs if not tested(*pair)], [pair for pair in pairs if tested(*pair)]


@functools.cache
def commands() -> list[Pair]:
    """All 20,910 commands with their actions: C → S and S | S after S | S."""
    sentences = list(_sentences())
    joined = [
        pair
        for (one, first), (other, second) in itertools.product(sentences, repeat=2)
        for pair in ((f"{one} and {other}", first + second), (f"{one} after {other}", second + first))
    ]
    return sentences + joined


def _sentences() -> Iterator[Pair]:
    """S → V twice | V thrice | V: 102."""
    for phrase, actions in _phrases():
        yield phrase, actions
        yield f"{phrase} twice", actions * 2
        yield f"{phrase} thrice", actions * 3


def _phrases() -> Iterator[Pair]:
    """V → U | U dir | U opposite dir | U around dir, where U may be `turn` if a direction follows: 34."""
    verbs: dict[str, Actions] = {word: (action,) for word, action in PRIMITIVES.items()}
    yield from verbs.items()
    for (verb, act), (direction, turn) in itertools.product([*verbs.items(), ("turn", ())], TURNS.items()):
        yield f"{verb} {direction}", (turn, *act)
        yield f"{verb} opposite {direction}", (turn, turn, *act)
        yield f"{verb} around {direction}", (turn, *act) * 4
