"""Sequences against sequences: edits per unit (words, phonemes, characters), and the share that is wholly right."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Literal

from lmlab.evaluation.metrics.totals import counted

Units = Sequence[Hashable]


@dataclass
class SequenceErrors:
    """Edit distance per unit of the reference, and the share of sequences without any edit.

    `word_error_rate` (`phoneme_error_rate`, `character_error_rate`) is the number of insertions, deletions and
    substitutions over the number of units in the references: totals over totals, so it may be above 1.
    `sequence_exact_match` is what SCAN reports; 1 minus it is what grapheme-to-phoneme papers call word error rate.
    With several references to one hypothesis the one with the fewest edits counts, the longest among such.

    Args:
      unit: what the sequences are of, for the name.
      edits: over all hypotheses.
      units: in all references.
      right: hypotheses without edits.
      total: hypotheses.
    """

    unit: Literal["word", "phoneme", "character", "action"] = "word"
    edits: int = 0
    units: int = 0
    right: int = 0
    total: int = 0

    def add(
        self,
        hypotheses: Sequence[Units],
        references: Sequence[Sequence[Units]],
        weights: Sequence[float] | None = None,
    ) -> None:
        """Counts sequences of units, each against its references; only those of a weight above 0 count.

        Raises:
          ValueError: a hypothesis has no reference, or is a str whose unit is not the character.
        """
        for hypothesis, accepted in counted(weights, hypotheses, references):
            if not accepted or isinstance(accepted, str):
                raise ValueError("every hypothesis needs a sequence of references, each a sequence of units")
            if isinstance(hypothesis, str) and self.unit != "character":
                raise ValueError(f"'{hypothesis}' is a text; give its {self.unit}s")
            edits, size = min((edit_distance(hypothesis, other), -len(other)) for other in accepted)
            self.edits += edits
            self.units -= size
            self.right += edits == 0
            self.total += 1

    def merge(self, other: SequenceErrors) -> None:
        """Counts what another has counted."""
        self.edits += other.edits
        self.units += other.units
        self.right += other.right
        self.total += other.total

    def result(self) -> dict[str, float]:
        """The error rate (left out where the references are empty) and `sequence_exact_match`."""
        rate = {f"{self.unit}_error_rate": self.edits / self.units} if self.units else {}
        return {**rate, "sequence_exact_match": self.right / self.total} if self.total else {}


def edit_distance(one: Units, other: Units) -> int:
    """The least number of insertions, deletions and substitutions from one to the other (Levenshtein 1966)."""
    row = list(range(len(other) + 1))  # row[j]: distance of what is read of `one` to other[:j]
    for i, unit in enumerate(one, 1):
        before, row[0] = row[0], i
        for j, wanted in enumerate(other, 1):
            before, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, before + (unit != wanted))
    return row[-1]
