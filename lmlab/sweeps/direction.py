"""Whether a metric is better when it is lower or when it is higher, by its name."""

from __future__ import annotations

import re
from typing import Literal

from lmlab.errors import ConfigError

Better = Literal["lower", "higher"]

_LOWER = re.compile(
    r"(^|_)(loss|nelbo|ppl|perplexity|nats|bits|ter)(_per_[a-z]+)?([/-]|$)|error_rate|impossible|grad_norm|^elbo_nats_per_"
)
_HIGHER = re.compile(
    r"accuracy|precision|recall|(^|_)f1|exact_match|bleu|chrf|rouge|reward|active_units|tokens_per_second"
)
_NEITHER = re.compile(r"entropy|mutual_information|noise_nats|(^|_)kl(_|/|$)")


def better(metric: str, said: Better | None = None) -> Better:
    """The direction that is better: what was said, else by the metric's name without its split.

    Raises:
      ConfigError: the name tells nothing, and nothing was said.
    """
    if said is not None:
        return said
    name = metric.split("/", 1)[-1]
    if not _NEITHER.search(name):
        if _HIGHER.search(name):
            return "higher"
        if _LOWER.search(name):
            return "lower"
    raise ConfigError(
        f"whether '{metric}' is better lower or higher is not known: say --better lower or --better higher."
    )
