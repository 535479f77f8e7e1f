"""What does not learn in a run (a teacher, the model beside an adapter), saved once beside its checkpoints."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import jax
import orbax.checkpoint as ocp
from jax import Array

from lmlab.training.files import writing


class FrozenArrays:
    """Arrays by name in one folder, written whole or not at all, and never changed.

    Args:
      folder: where they are.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder.absolute()

    def save(self, arrays: Mapping[str, Array]) -> None:
        """Writes them and waits for it. What was there belonged to no checkpoint, and is replaced."""
        if jax.process_index() == 0:
            with writing(self.folder):
                for left in self.folder.parent.glob(f"{self.folder.name}.orbax-checkpoint-tmp*"):  # by a kill
                    shutil.rmtree(left)
        with _checkpointer() as orbax:
            orbax.save(self.folder, args=ocp.args.PyTreeSave(dict(arrays)), force=True)

    def arrays(self, target: Mapping[str, jax.ShapeDtypeStruct]) -> dict[str, Array]:
        """Those asked for, laid out as `target` says; where they are not there or damaged, what orbax raises."""
        wanted = dict(target)
        how = ocp.checkpoint_utils.construct_restore_args(wanted)
        with _checkpointer() as orbax:
            found = orbax.restore(
                self.folder, args=ocp.args.PyTreeRestore(item=wanted, restore_args=how, partial_restore=True)
            )
        return dict(found)


@contextlib.contextmanager
def _checkpointer() -> Iterator[Any]:
    orbax = ocp.Checkpointer(ocp.PyTreeCheckpointHandler())
    try:
        yield orbax
    finally:
        orbax.close()
