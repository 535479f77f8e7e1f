"""A search by Optuna, as settings: how many settings it proposes, and by what it judges them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from lmlab.ranges import Count, Seed
from lmlab.registry import settings


@settings.register("optuna")
@dataclass(frozen=True)
class Optuna:
    """Proposes values of the axes (lists or ranges) by what came of earlier ones (extra `optuna`).

    Some settings are proposed, trained with every seed, and judged by their mean; then the next ones. What was proposed
    is in `optuna.journal` of the sweep's folder, so that a search that was stopped goes on. With `sweep.halving`, those
    are let go of that are behind among all that have come to their rung so far (the rule of ASHA, Li et al. 2020,
    arXiv:1810.05934, applied lot by lot).

    Args:
      settings: how many are proposed in all.
      at_a_time: how many of them before it is looked at what came of them.
      sampler: `tpe` (tree-structured Parzen estimator, Bergstra et al. 2011) or `random`.
      metric: as `lmlab report` names it.
      better: which direction is better; None: by the metric's name.
      seed: of the sampler.
    """

    settings: Count = 32
    at_a_time: Count = 8
    sampler: Literal["tpe", "random"] = "tpe"
    metric: str = "valid/nats_per_token"
    better: Literal["lower", "higher"] | None = None
    seed: Seed = 0
