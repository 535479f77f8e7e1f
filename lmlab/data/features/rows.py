"""What a conversion is given and what it makes: rows, of which any can be gathered into a batch."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol, TypeVar

import numpy as np

from lmlab.contracts import Tokenizer
from lmlab.errors import ConfigError

Packing = Literal["windows", "first_fit", "contiguous"]
Overlong = Literal["refuse", "drop", "cut"]
UnseenLabel = Literal["refuse", "drop", "keep"]
Batch = dict[str, np.ndarray]


@dataclass(frozen=True)
class Setting:
    """What a conversion needs to know beside the examples.

    Args:
      seq_len: tokens per row, T.
      tokenizer: fitted; None for datasets of ids.
      source_len: tokens per row of an encoder-decoder's source, S; None: as many as T.
      packing: see `experiment`.
      lanes: rows of a batch, which read on side by side where the packing is `contiguous`.
      overlong: an example that a row cannot hold is refused, dropped and counted, or cut and counted.
      unseen_label: an example whose label no training example has is refused, dropped and counted, or kept and
        counted, with the label -1, which no model predicts.
      labels: of whole examples, by id.
      tags: of words, by id.
      seed: of what a conversion draws.
      ids: those that stand for no symbol, by role, of a dataset of ids; a tokenizer knows its own.
      of_loss: numbers of the loss that rows are made by, see `contracts.Loss`.
    """

    seq_len: int
    tokenizer: Tokenizer | None = None
    source_len: int | None = None
    packing: Packing = "windows"
    lanes: int = 1
    overlong: Overlong = "refuse"
    unseen_label: UnseenLabel = "refuse"
    labels: tuple[str, ...] = ()
    tags: tuple[str, ...] = ()
    seed: int = 0
    ids: Mapping[str, int] = field(default_factory=dict)
    of_loss: Mapping[str, Any] = field(default_factory=dict)

    @property
    def special_ids(self) -> Mapping[str, int]:
        """Ids that stand for no text, by role."""
        return self.ids if self.tokenizer is None else self.tokenizer.special_ids

    @property
    def text_tokenizer(self) -> Tokenizer:
        """The tokenizer, for examples that are text."""
        assert self.tokenizer is not None, "`open_data` refuses text without a tokenizer"
        return self.tokenizer

    def special(self, role: str, *instead: str) -> int:
        """The id with a role, or the first of the roles `instead` that there is; ConfigError where there is none."""
        ids = self.special_ids
        for known in (role, *instead):
            if known in ids:
                return ids[known]
        owner = "the dataset" if self.tokenizer is None else "the tokenizer"
        way_out = (
            f"Choose a dataset of ids that has one, or one of text and a tokenizer with '{role}' among its specials."
            if self.tokenizer is None
            else f"Add '{role}' to the tokenizer's specials."
        )
        there = f"; it has {', '.join(ids)}" if ids else ""
        raise ConfigError(f"{owner} has no id for '{role}', which this loss needs{there}. {way_out}")


class Rows(Protocol):
    """The rows of one split: of a training epoch, or of an evaluation."""

    def __len__(self) -> int:
        """How many there are."""
        ...

    @property
    def notes(self) -> Mapping[str, float]:
        """What happened on the way: `padding` (share of all places), examples that were `dropped`, `cut`, ..."""
        ...

    @property
    def ids(self) -> np.ndarray:
        """All ids that are predicted, 1-d (an end-of-text before the first may be among them)."""
        ...

    @property
    def targets(self) -> int:
        """Predictions in all of them."""
        ...

    def gather(self, rows: np.ndarray, places: np.ndarray | None = None) -> Batch:
        """These rows as the arrays of a batch, freshly made (devices may keep them).

        Args:
          rows: which, (B,).
          places: where each stands in the endless order of training; None: the rows themselves, as in an evaluation.
            What is drawn anew each time a row comes is drawn from this.
        """
        ...


Conversion = Callable[[Sequence[Any], Setting, bool], Rows]
"""(examples, setting, training) → rows. In training, what does not fill a row may be left out."""

CONVERSIONS: dict[tuple[type, type], Conversion] = {}
"""How rows are made, by (example kind, batch type). Where a pair is missing, that dataset and that loss do not fit."""

Function = TypeVar("Function", bound=Conversion)


def converts(example: type, reads: type) -> Callable[[Function], Function]:
    """Registers the conversion from an example kind to a batch type."""

    def register(function: Function) -> Function:
        CONVERSIONS[example, reads] = function
        return function

    return register


def conversion(example: type, reads: type) -> Conversion:
    """The conversion from an example kind to a batch type; ConfigError for a dataset that the loss cannot read."""
    if (example, reads) not in CONVERSIONS:
        fitting = sorted(kind.__name__ for kind, batch in CONVERSIONS if batch is reads)
        raise ConfigError(
            f"a dataset that the loss cannot read: it yields {example.__name__}, the loss reads a {reads.__name__}, "
            f"which is made from {' or '.join(fitting) or 'nothing that is known'}."
        )
    return CONVERSIONS[example, reads]


def usual_batch(dataset: Any) -> type:
    """The batch type that a dataset is usually read as: its own `usual`, or the first that its examples become.

    Raises:
      ConfigError: nothing is known that its examples become.
    """
    usual = getattr(dataset, "usual", None) or next((b for kind, b in CONVERSIONS if kind is dataset.example), None)
    if usual is None:
        raise ConfigError(f"no loss reads {dataset.example.__name__}: it becomes no batch that is known.")
    return usual
