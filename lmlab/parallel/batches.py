"""What every partitioner does with the rows of a batch."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import jax

from lmlab.errors import ConfigError


def check_division(global_batch_size: int, devices: int, microbatches: int) -> None:
    """ConfigError unless every device has the same number of rows in every microbatch."""
    parts = devices * microbatches
    if global_batch_size % parts == 0 and global_batch_size > 0:
        return
    below = global_batch_size // parts * parts
    near = f"{below} or {below + parts}" if below else f"{parts}"
    raise ConfigError(
        f"experiment.global_batch_size = {global_batch_size} does not divide over {devices} devices × {microbatches} "
        f"microbatches. Make it {near}, or use fewer devices (mesh.data) or other microbatches."
    )


def contiguous_rows(blocks: Iterable[slice], size: int) -> range:
    """The rows that the blocks cover together, of a batch of `size` rows.

    Raises:
      ConfigError: they are not one block.
    """
    covered = sorted({row for block in blocks for row in range(size)[block]})
    if not covered or covered != list(range(covered[0], covered[-1] + 1)):
        raise ConfigError(
            "mesh: this process would read rows that are not one block of the batch. "
            "Let fsdp × tensor divide, or be divided by, the devices per process."
        )
    return range(covered[0], covered[-1] + 1)


def by_row(path: tuple[Any, ...]) -> bool:
    """Whether the leaf of a state at this path has the rows of the batch as its first axis, and lies as they do."""
    return (jax.tree_util.keystr(path, simple=True, separator="/") + "/").startswith("model_state/carry/")
