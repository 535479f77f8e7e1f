"""Several datasets as one, each with a share of the rows that training sees."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from lmlab.contracts import Dataset
from lmlab.data.features.mixing import Stages, quotas_of
from lmlab.errors import ConfigError
from lmlab.ranges import Natural
from lmlab.registry import datasets


@datasets.register("mixture")
@dataclass(frozen=True)
class Mixture:
    """Datasets of any kinds that one loss can read, by weights; evaluations see each row of every part once.

    A weight is a share of the rows of every thousand that training reads, whatever the sizes of the parts; a part that
    is used up begins anew, in another order. Weights may change with the step (Bengio et al. 2009, "Curriculum
    learning"). `lmlab check` and the start of a run say how many rows each part gives in all.

    Example:
      experiment.dataset = @mixture
      mixture.parts = [@brown, @state_of_the_union]
      mixture.weights = [3.0, 1.0]
      mixture.stages = [(1000, (1.0, 1.0))]      # from step 1000 on

    Args:
      parts: the datasets; all of text, or all of ids with one vocabulary.
      weights: one for each part, of any sum (none: all alike).
      stages: (first step, weights), in the order of the steps.
    """

    TINY: ClassVar[str] = """
    mixture.parts = [@random_tokens, @token_file]
    random_tokens.vocab = 11
    random_tokens.tokens = 2003
    token_file.path = '{folder}/tokens.npy'
    token_file.vocab = 11
    """

    parts: tuple[Dataset, ...]
    weights: tuple[float, ...] = ()
    stages: tuple[tuple[Natural, tuple[float, ...]], ...] = ()

    def __post_init__(self) -> None:
        if not self.parts:
            raise ConfigError("mixture.parts is empty: give at least one dataset.")
        for _, weights in self.plan:
            if len(weights) != len(self.parts):
                raise ConfigError(f"mixture: {len(weights)} weights for {len(self.parts)} parts: give one for each.")
            quotas_of(weights)
        steps = [step for step, _ in self.plan]
        if steps != sorted(set(steps)):
            raise ConfigError(
                f"mixture.stages begin at steps {tuple(steps[1:])}: each must begin behind the one before."
            )

    @property
    def plan(self) -> Stages:
        """Weights from step 0 on, and where they change."""
        return ((0, self.weights or (1.0,) * len(self.parts)), *self.stages)

    @property
    def example(self) -> type:
        """The kind of example that all parts yield; `object` where they differ."""
        kinds = {part.example for part in self.parts}
        return kinds.pop() if len(kinds) == 1 else object

    @property
    def labels(self) -> tuple[str, ...]:
        """The labels of all parts, sorted."""
        return self._names("labels")

    @property
    def tags(self) -> tuple[str, ...]:
        """The tags of all parts, sorted."""
        return self._names("tags")

    @property
    def vocab(self) -> int:
        """Number of ids, for parts of ids; ConfigError where they differ."""
        sizes = {int(part.vocab) for part in self.parts}  # type: ignore[attr-defined]
        if len(sizes) > 1:
            raise ConfigError(f"mixture: the parts have vocabularies of {sorted(sizes)} ids: they must have one.")
        return sizes.pop()

    def split(self, name: str) -> Sequence[Any]:
        """The examples of all parts, one part after the other."""
        return tuple(itertools.chain.from_iterable(part.split(name) for part in self.parts))

    def fingerprint(self) -> dict[str, Any]:
        """The parts' fingerprints, and the weights."""
        plan = [[step, list(weights)] for step, weights in self.plan]
        return {"plan": plan, "parts": [dict(part.fingerprint()) for part in self.parts]}

    def _names(self, field: str) -> tuple[str, ...]:
        return tuple(sorted({name for part in self.parts for name in getattr(part, field, ())}))
