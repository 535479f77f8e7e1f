"""Whether a model finds the sentence that agrees more probable than the one that does not."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from lmlab.errors import ConfigError
from lmlab.evaluation.agreement import PHENOMENA, pairs_of
from lmlab.evaluation.local_params import local_params
from lmlab.evaluation.metrics.shares import named_share
from lmlab.evaluation.sentence_scores import SentenceScorer
from lmlab.ranges import Count, Seed
from lmlab.registry import evaluators, near_names

if TYPE_CHECKING:
    from lmlab.training.program import Program
    from lmlab.training.state import State


@evaluators.register("minimal_pairs")
@dataclass(frozen=True)
class MinimalPairs:
    """Agreement in generated English sentences (Marvin & Linzen 2018, arXiv:1808.09031): see `evaluation.agreement`.

    A pair is right where the whole sentence that agrees is more probable than the whole other one, by `SentenceScorer`;
    equal ones are wrong, as where the tokenizer makes the same of both, and are counted.

    Metrics: `minimal_pairs/PHENOMENON/accuracy`, with Wilson's 95 % interval (`/from`, `/to`) and `/pairs`; the same of
    `all` phenomena together; and the shares of all pairs that were `/ties` and that hold an `/unknown` token. The
    interval is that of other sentences of this small grammar, not of other words or of English. Chance is 0.5.

    Args:
      count: pairs of each phenomenon (fewer where the grammar has no more).
      phenomena: which; none: all.
      seed: of what is drawn.
    """

    TINY: ClassVar[str] = """
    experiment.dataset = @text_files
    experiment.tokenizer = @bytes
    minimal_pairs.count = 3
    minimal_pairs.phenomena = ['simple_agreement']
    """

    count: Count = 200
    phenomena: tuple[str, ...] = ()
    seed: Seed = 0

    def bind(self, program: Program) -> Callable[[State], Mapping[str, float]]:
        """The measurement of a running state.

        Raises:
          ConfigError: there is no such phenomenon, or the model gives no sentence a probability.
        """
        for name in self.phenomena:
            if name not in PHENOMENA:
                raise ConfigError(
                    f"minimal_pairs.phenomena: there is no '{name}'.{near_names(name, list(PHENOMENA))}\n"
                    f"  phenomena: {', '.join(PHENOMENA)}"
                )
        pairs = {name: pairs_of(name, self.count, self.seed) for name in self.phenomena or PHENOMENA}
        scorer = SentenceScorer(program, "the evaluator 'minimal_pairs'")
        texts = [text for each in pairs.values() for pair in each for text in pair]
        unknown = getattr(program.tokenizer, "unknown", None)
        strange = [unknown is not None and bool((scorer.ids(text) == unknown).any()) for text in texts]
        strange_pairs = np.array(strange).reshape(-1, 2).any(1)

        def measure(state: State) -> dict[str, float]:
            good, bad = scorer(local_params(program, state), texts).reshape(-1, 2).T
            found: dict[str, float] = {}
            at = 0
            for name, each in pairs.items():
                part = slice(at, at + len(each))
                at += len(each)
                found |= _accuracy(name, good[part] > bad[part])
            found |= _accuracy("all", good > bad)
            found["minimal_pairs/all/ties"] = float((good == bad).mean())
            found["minimal_pairs/all/unknown"] = float(strange_pairs.mean())
            return found

        return measure


def _accuracy(name: str, right: np.ndarray) -> dict[str, float]:
    return named_share(f"minimal_pairs/{name}", "accuracy", int(right.sum()), len(right))
