"""The update rule of models that count."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import optax

from lmlab.registry import optimizers


@optimizers.register("counting")
@dataclass(frozen=True)
class Counting:
    """No update rule: the model counts (a CountedLM, such as `ngram`). No gradient is computed, none is clipped."""

    COUNTS: ClassVar[bool] = True
    LOSSES: ClassVar[tuple[str, ...]] = ("autoregressive",)
    TINY: ClassVar[str] = "experiment.model = @ngram"

    def transformation(self, roles: Mapping[str, str]) -> optax.GradientTransformation:
        """Nothing changes."""
        return optax.set_to_zero()
