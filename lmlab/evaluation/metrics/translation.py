"""BLEU and chrF through sacrebleu (Post 2018, arXiv:1804.08771): comparable wherever the signature is the same."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from lmlab.errors import DataError
from lmlab.evaluation.metrics.totals import counted, library

ORDERS = 4
_SEPARATED = (" .", " !", " ?", " ,")


@dataclass
class BLEU:
    """Corpus BLEU of Papineni et al. (2002), from 0 to 100: `bleu/sacrebleu-13a`.

    Args:
      tokenize: sacrebleu's tokenizer: `13a` (as in WMT), `intl`, `char` (Japanese and Chinese without other tools),
        `zh`, `none`, ... It is in the name.
      lowercase: compares without case; the name then ends in `-lc`.
      force: takes text that looks tokenised.

    Raises:
      ConfigError: sacrebleu is not installed, or has no such tokenizer.
    """

    tokenize: str = "13a"
    lowercase: bool = False
    force: bool = False
    right: list[int] = field(init=False, default_factory=lambda: [0] * ORDERS)
    total: list[int] = field(init=False, default_factory=lambda: [0] * ORDERS)
    hypothesis_length: int = field(init=False, default=0)
    reference_length: int = field(init=False, default=0)
    looks: _Looks = field(init=False, default_factory=lambda: _Looks())

    def __post_init__(self) -> None:
        self._metric()

    @property
    def name(self) -> str:
        """The metric's name: what of the signature is not always the same (smoothing is `exp`)."""
        return f"bleu/sacrebleu-{self.tokenize}{'-lc' if self.lowercase else ''}"

    def add(
        self,
        hypotheses: Sequence[str],
        references: Sequence[Sequence[str]],
        weights: Sequence[float] | None = None,
    ) -> None:
        """Counts detokenised texts, each against its references; only those of a weight above 0 count."""
        rows = counted(weights, hypotheses, references)
        if not rows:
            return
        self.looks.see(rows)
        score = self._metric().corpus_score(*_columns(rows))
        # These four are sums over sentences, so that those of batches add up to those of the corpus.
        self.right = [a + b for a, b in zip(self.right, score.counts, strict=True)]
        self.total = [a + b for a, b in zip(self.total, score.totals, strict=True)]
        self.hypothesis_length += score.sys_len
        self.reference_length += score.ref_len

    def merge(self, other: BLEU) -> None:
        """Counts what another has counted."""
        self.right = [a + b for a, b in zip(self.right, other.right, strict=True)]
        self.total = [a + b for a, b in zip(self.total, other.total, strict=True)]
        self.hypothesis_length += other.hypothesis_length
        self.reference_length += other.reference_length
        self.looks.merge(other.looks)

    def result(self) -> dict[str, float]:
        """BLEU under `name`.

        Raises:
          DataError: most references look tokenised, and `force` is not set.
        """
        if not self.looks.total:
            return {}
        self.looks.check(self.name, self.force)
        score = library("sacrebleu.metrics", "BLEU").BLEU.compute_bleu(
            self.right, self.total, self.hypothesis_length, self.reference_length, smooth_method="exp"
        )
        return {self.name: score.score}

    def _metric(self) -> Any:
        # force: batch by batch sacrebleu would warn of each; `looks` counts over all of them.
        made = library("sacrebleu.metrics", "BLEU").BLEU
        return made(tokenize=self.tokenize, lowercase=self.lowercase, force=True)


@dataclass
class ChrF:
    """Corpus chrF2 of Popović (2015), F-score of character n-grams up to 6, from 0 to 100: `chrf/sacrebleu`.

    sacrebleu gives no sums for it, so that the texts are kept until the end.

    Args:
      word_order: also n-grams of words up to this order; 2 is chrF++ (Popović 2017), `chrf++/sacrebleu`.
      force: takes text that looks tokenised.
      rows: hypotheses with their references.

    Raises:
      ConfigError: sacrebleu is not installed.
    """

    word_order: int = 0
    force: bool = False
    rows: list[tuple[Any, ...]] = field(default_factory=list)

    def __post_init__(self) -> None:
        library("sacrebleu.metrics", "chrF")
        if self.word_order not in (0, 2):
            raise ValueError(f"word_order must be 0 (chrF) or 2 (chrF++), not {self.word_order}")

    @property
    def name(self) -> str:
        """The metric's name."""
        return "chrf++/sacrebleu" if self.word_order else "chrf/sacrebleu"

    def add(
        self,
        hypotheses: Sequence[str],
        references: Sequence[Sequence[str]],
        weights: Sequence[float] | None = None,
    ) -> None:
        """Keeps detokenised texts, each with its references; only those of a weight above 0 count."""
        self.rows += counted(weights, hypotheses, references)

    def merge(self, other: ChrF) -> None:
        """Counts what another has kept."""
        self.rows += other.rows

    def result(self) -> dict[str, float]:
        """ChrF under `name`.

        Raises:
          DataError: most references look tokenised, and `force` is not set.
        """
        if not self.rows:
            return {}
        looks = _Looks()
        looks.see(self.rows)
        looks.check(self.name, self.force)
        metric = library("sacrebleu.metrics", "chrF").CHRF(word_order=self.word_order)
        return {self.name: metric.corpus_score(*_columns(self.rows)).score}


@dataclass
class _Looks:
    """How many first references end in a punctuation mark that stands apart, as tokenised text does."""

    separated: int = 0
    total: int = 0

    def see(self, rows: Sequence[tuple[Any, ...]]) -> None:
        for _, references in rows:
            if not references or isinstance(references, str):
                raise ValueError("every hypothesis needs a sequence of references")
            self.separated += references[0].rstrip().endswith(_SEPARATED)
            self.total += 1

    def merge(self, other: _Looks) -> None:
        self.separated += other.separated
        self.total += other.total

    def check(self, name: str, force: bool) -> None:
        if self.separated * 2 > self.total and not force:
            raise DataError(
                f"{name} is defined on detokenised text, but {self.separated} of {self.total} references end in a "
                "punctuation mark that stands apart. Detokenise both sides, or set force = True."
            )


def _columns(rows: Sequence[tuple[Any, ...]]) -> tuple[list[str], list[list[str | None]]]:
    """Hypotheses and columns of references, as sacrebleu wants them; None where a row has fewer than others."""
    most = max(len(references) for _, references in rows)
    columns = [[refs[i] if i < len(refs) else None for _, refs in rows] for i in range(most)]
    return [hypothesis for hypothesis, _ in rows], columns
