"""A run: a folder and what can be read from it, whether it is being trained now or was finished long ago."""

from __future__ import annotations

from functools import cached_property
from pathlib import Path
from typing import Any

from jax import Array

from lmlab.config import Resolved
from lmlab.errors import CheckpointError
from lmlab.training.checkpoint import Checkpoints, Note
from lmlab.training.program import Program
from lmlab.training.run_folder import RunFolder
from lmlab.training.state import State, averaged_params


class Run:
    """A training run by its folder.

    Args:
      folder: the run folder.
      program: what it computes, if that was built already.

    Attributes:
      folder: the run folder.
      files: its files.

    Raises:
      RunFolderError: there is no run, or its configuration is damaged.
    """

    def __init__(self, folder: str | Path, program: Program | None = None) -> None:
        self.folder = Path(folder)
        self.files = RunFolder(self.folder)
        self.resolved: Resolved = self.files.resolved()
        if program is not None:
            self.program = program

    @cached_property
    def program(self) -> Program:
        """What the run computes, built from its config.json."""
        return Program(self.resolved, saved_tokenizer=self.files.saved_tokenizer())

    @property
    def status(self) -> str:
        """`running`, `interrupted`, `stopped`, `failed` or `finished`; `new` before the first session."""
        return self.files.status().get("state", "new")

    @property
    def step(self) -> int:
        """Optimizer steps done, as status.json has it."""
        return self.files.status().get("step", 0)

    def metrics(self) -> list[dict[str, Any]]:
        """The records of metrics.jsonl."""
        return self.files.records()

    def steps(self) -> list[int]:
        """The steps of its checkpoints, ascending."""
        checkpoints = Checkpoints(self.files.checkpoints)
        try:
            return checkpoints.steps()
        finally:
            checkpoints.close()

    def restore(self, step: int | None = None) -> tuple[State, Note]:
        """A saved state in the partitioner's layout, with its note.

        Args:
          step: which checkpoint; None: the newest.

        Raises:
          CheckpointError: it is missing, damaged, or does not fit the program.
        """
        checkpoints = Checkpoints(self.files.checkpoints)
        try:
            steps = checkpoints.steps()
            if not steps:
                raise CheckpointError(f"{self.files.checkpoints} holds no checkpoint. Train the run first.")
            step = steps[-1] if step is None else step
            exported = checkpoints.restore(step, self.program.abstract_state)
            return self.program.partitioner.load(exported), checkpoints.note(step)
        finally:
            checkpoints.close()

    @cached_property
    def state(self) -> State:
        """The newest saved state, in the partitioner's layout."""
        return self.restore()[0]

    @property
    def params(self) -> dict[str, Array]:
        """The parameters of `state` by path, averaged where the experiment keeps an average: global arrays."""
        return averaged_params(self.program.partitioner.export(self.state))
