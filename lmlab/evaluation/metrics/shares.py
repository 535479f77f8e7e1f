"""A share of independent trials, with an interval for what it would be of all of them."""

from __future__ import annotations

import math

NORMAL_95 = 1.959963984540054
"""Between minus and plus this lie 95 % of a standard normal law."""


def wilson(right: float, count: int) -> tuple[float, float]:
    """Wilson's 95 % interval of a binomial share (Wilson 1927); it stays within 0 and 1 and is never empty.

    Args:
      right: successes; halves may be among them.
      count: trials, at least 1.
    """
    share, square = right / count, NORMAL_95**2
    middle = (share + square / (2 * count)) / (1 + square / count)
    half = NORMAL_95 / (1 + square / count) * math.sqrt(share * (1 - share) / count + square / (4 * count**2))
    return max(middle - half, 0.0), min(middle + half, 1.0)


def named_share(name: str, measure: str, right: float, count: int) -> dict[str, float]:
    """`NAME/MEASURE`, its interval as `.../from` and `.../to`, and `NAME/pairs`, of which it is the share."""
    low, high = wilson(right, count)
    return {f"{name}/{measure}": right / count, f"{name}/from": low, f"{name}/to": high, f"{name}/pairs": count}
