"""Successive halving, as settings: at which steps which part of a sweep is let go of."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import ClassVar, Literal

from lmlab.contracts import Spec
from lmlab.errors import ConfigError
from lmlab.ranges import Count, ProperFraction
from lmlab.registry import settings
from lmlab.sweeps.direction import better


@settings.register("halving")
@dataclass(frozen=True)
class Halving:
    """At each rung the best settings of those that are left go on, by the mean of a metric over their seeds.

    Successive halving (Karnin et al. 2013; Jamieson and Talwalkar, arXiv:1502.07943, algorithm 1) over settings: seeds
    of one setting go on or end together. A trial that failed counts as the worst. What was let go of stays at its rung,
    with the status `pruned`; a trial that goes on is what it would have been alone.

    Args:
      rungs: rising numbers of steps, at which the metric is measured (`experiment.eval_every` divides them).
      keep: the part of the settings that goes on, rounded up.
      metric: as `lmlab report` names it: of an evaluation, or `train/NAME` of the training records.
      better: which direction is better; None: by the metric's name.
    """

    TINY: ClassVar[str] = "halving.rungs = (2, 4)"

    rungs: tuple[Count, ...]
    keep: ProperFraction = 0.5
    metric: str = "valid/nats_per_token"
    better: Literal["lower", "higher"] | None = None

    def check(self, specs: Iterable[Spec]) -> None:
        """ConfigError where the metric has no value at a rung, or no direction.

        Args:
          specs: of the trials.
        """
        better(self.metric, self.better)
        if list(self.rungs) != sorted(set(self.rungs)) or not self.rungs:
            raise ConfigError(f"halving.rungs = {list(self.rungs)}: give one number of steps or several that rise.")
        measured = "log_every" if self.metric.startswith("train/") else "eval_every"
        for spec in specs:
            steps, every = spec.kwargs["steps"], spec.kwargs[measured]
            if self.rungs[-1] >= steps:
                raise ConfigError(f"halving.rungs: {self.rungs[-1]} is not before the end, experiment.steps = {steps}.")
            if odd := [rung for rung in self.rungs if not every or rung % every]:
                raise ConfigError(
                    f"halving.rungs: '{self.metric}' is not measured at step {odd[0]}, for experiment.{measured} = "
                    f"{every}. Set it to a divisor of every rung, such as {math.gcd(*self.rungs)}."
                )
