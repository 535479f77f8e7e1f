"""A ladder over compute: model sizes, each trained on several numbers of tokens, as settings of ordinary trials."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from lmlab.errors import ConfigError
from lmlab.ranges import Count, Natural
from lmlab.registry import settings
from lmlab.specs import Written

if TYPE_CHECKING:
    from lmlab.sweeps.space import Settings

STEPS = "experiment.steps"
"""What a number of tokens becomes."""


@settings.register("ladder")
@dataclass(frozen=True)
class Ladder:
    """Sizes of a model and numbers of tokens, for a scaling law: `sweep.over_compute = @ladder`.

    Every size is trained on every number of tokens, each time from the start, so that every schedule comes to its end.
    What the sweep has axes for besides (rates, seeds) is done at every rung. `lmlab scaling SWEEP` fits the law.

        ladder.sizes = {'gpt.layers': [1, 2, 3], 'gpt.width': [32, 48, 64]}
        ladder.tokens = [200000, 400000, 800000]

    Args:
      sizes: key -> its values from the smallest size to the largest; first values belong together, second ones, and so
        on.
      tokens: training tokens, rounded to whole steps of `experiment.global_batch_size` rows of `experiment.seq_len`.
      held_out: the law is fitted without so many of the largest sizes, and foretells them.
    """

    sizes: Mapping[str, tuple[Written, ...]] = field(default_factory=dict)
    tokens: tuple[Count, ...] = ()
    held_out: Natural = 0

    @property
    def keys(self) -> tuple[str, ...]:
        """What it binds."""
        return (*self.sizes, STEPS)


def sizes_of(ladder: Ladder) -> list[Settings]:
    """What each size binds, the smallest first, with one step: it cannot be resolved without a number of them.

    Raises:
      ConfigError: there is nothing to climb, or the keys have different numbers of values.
    """
    lengths = {key: len(values) for key, values in ladder.sizes.items()}
    if len(set(lengths.values())) > 1:
        each = ", ".join(f"'{key}' {length}" for key, length in lengths.items())
        raise ConfigError(f"ladder.sizes takes values together, of which its keys have different numbers: {each}.")
    for key in (STEPS, "experiment.seed"):
        if key in ladder.sizes:
            raise ConfigError(f"ladder.sizes: '{key}' makes no model larger. Steps come of ladder.tokens.")
    if not any(lengths.values()) or not ladder.tokens:
        raise ConfigError("a ladder needs ladder.sizes and ladder.tokens (lmlab describe ladder).")
    count = next(iter(lengths.values()))
    if ladder.held_out >= count:
        raise ConfigError(f"ladder.held_out = {ladder.held_out} leaves none of {count} sizes to fit a law to.")
    return [
        {**dict(zip(lengths, values, strict=True)), STEPS: "1"} for values in zip(*ladder.sizes.values(), strict=True)
    ]


def rungs(ladder: Ladder, others: Sequence[Settings], tokens_per_step: Sequence[int]) -> Iterator[Settings]:
    """Every size with every number of tokens under every other setting.

    Args:
      ladder: see `sizes_of`.
      others: what else is varied; `{}` where nothing is.
      tokens_per_step: of `beside(ladder, others)`, in its order.

    Raises:
      ConfigError: another axis decides about a size or the steps; tokens that are less than a step.
    """
    for setting, per_step in zip(beside(ladder, others), tokens_per_step, strict=True):
        for tokens in ladder.tokens:
            if tokens < per_step:
                raise ConfigError(f"ladder.tokens: {tokens:,} tokens are less than one step, which has {per_step:,}.")
            yield {**setting, STEPS: str(round(tokens / per_step))}


def beside(ladder: Ladder, others: Sequence[Settings]) -> list[Settings]:
    """Every size under every other setting, the smallest first."""
    for key in dict.fromkeys(key for setting in others for key in setting):
        if key in ladder.keys:
            raise ConfigError(
                f"'{key}' is an axis of the sweep, and the ladder decides about it. Take one of them out."
            )
    return [{**size, **setting} for size in sizes_of(ladder) for setting in others]
