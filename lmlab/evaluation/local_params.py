"""The parameters of a running state, for measurements that read texts of their own and not the batches of a split."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from lmlab.generation.writing import local
from lmlab.training.state import averaged_params

if TYPE_CHECKING:
    from jaxtyping import Array

    from lmlab.training.program import Program
    from lmlab.training.state import State


def local_params(program: Program, state: State) -> Mapping[str, Array]:
    """Path -> array that this process can compute with alone, averaged where the run keeps an average."""
    return local(averaged_params(program.partitioner.export(state)))
