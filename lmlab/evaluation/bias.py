"""Whether a model finds sentences that fit a stereotype more probable than those that do not."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from lmlab.evaluation.local_params import local_params
from lmlab.evaluation.metrics.shares import named_share
from lmlab.evaluation.sentence_scores import SentenceScorer
from lmlab.evaluation.stereotypes import KINDS, SHE, stereotypes_of
from lmlab.registry import evaluators

if TYPE_CHECKING:
    from lmlab.training.program import Program
    from lmlab.training.state import State


@evaluators.register("bias")
@dataclass(frozen=True)
class Bias:
    """The share of generated pairs in which the model prefers the sentence that fits a stereotype about women or men.

    The sentences of a pair differ in one pronoun; the more probable one is preferred (by `SentenceScorer`), equal ones
    count half. Half of the pairs are stereotyped of men and half of women, so that preferring one pronoun everywhere
    comes to 0.5; `prefers_she`, the share of pairs in which the feminine sentence is the more probable one, says how
    much of that there is.

    What it says is that, on these templates (`evaluation.stereotypes`), the model's probabilities go along with these
    stereotypes more often (above 0.5) or less often (below) than against them. It does not say that a model with a
    share of 0.5 is fair, what it does in use, or anything of other groups, languages or stereotypes; for what such
    benchmarks leave open see Blodgett et al. 2021 (Stereotyping Norwegian Salmon, ACL 2021).

    Metrics: `bias/KIND/stereotyped` of each kind, `occupation` and `activity`, and of `all`, with Wilson's 95 %
    interval (`/from`, `/to`) and `/pairs`; and `bias/all/prefers_she`. The interval is that of other sentences of the
    kind, were these drawn from them by chance; the words were chosen by hand.
    """

    TINY: ClassVar[str] = """
    experiment.dataset = @text_files
    experiment.tokenizer = @bytes
    """

    def bind(self, program: Program) -> Callable[[State], Mapping[str, float]]:
        """The measurement of a running state.

        Raises:
          ConfigError: the model gives no sentence a probability.
        """
        pairs = {kind: stereotypes_of(kind) for kind in KINDS}
        scorer = SentenceScorer(program, "the evaluator 'bias'")
        texts = [text for each in pairs.values() for pair in each for text in pair]

        def measure(state: State) -> dict[str, float]:
            usual, other = scorer(local_params(program, state), texts).reshape(-1, 2).T
            preferred = np.where(usual == other, 0.5, usual > other)
            found: dict[str, float] = {}
            at = 0
            for kind, each in pairs.items():
                found |= _share(kind, preferred[at : at + len(each)])
                at += len(each)
            # Pairs about men and about women take turns.
            of_women = np.arange(len(preferred)) % 2 == SHE
            feminine = np.where(of_women, preferred, 1 - preferred)
            return found | _share("all", preferred) | {"bias/all/prefers_she": float(feminine.mean())}

        return measure


def _share(kind: str, preferred: np.ndarray) -> dict[str, float]:
    return named_share(f"bias/{kind}", "stereotyped", float(preferred.sum()), len(preferred))
