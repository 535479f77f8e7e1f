"""Agreement between the processes of one run; each function does nothing where there is only one."""

from __future__ import annotations

import jax
import numpy as np
from jax.experimental import multihost_utils


def agreed(flag: bool) -> bool:
    """Whether any process says so; all of them must ask, and wait for each other."""
    if jax.process_count() == 1:
        return flag
    return bool(np.any(multihost_utils.process_allgather(np.asarray(flag))))


def meet(where: str) -> None:
    """Waits until every process is here."""
    if jax.process_count() > 1:
        multihost_utils.sync_global_devices(where)
