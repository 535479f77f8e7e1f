"""`runs/<name>/`: what a run leaves behind, and the proof of what was run.

config.gin        what was asked for, in one file that resolves to the same configuration
config.json       the resolved configuration, where each value came from, and its hash
environment.json  versions, source code, devices, flags, command (of the latest session, and the earlier ones)
tokenizer.json    the fitted vocabulary, where there is a tokenizer
metrics.jsonl     the truth about the numbers; every other writer's output can be made from it
checkpoints/      saved states
samples/          generated text
status.json       running, interrupted, stopped, failed or finished, and at which step
set_aside/        what a resumption from an older step has replaced
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

from lmlab.config import Resolved, diff, identity, spell_value
from lmlab.contracts import Spec
from lmlab.errors import ConfigError, RunFolderError
from lmlab.training.files import read_json, replace_json, replace_text, writing
from lmlab.training.metrics_file import NAME as METRICS
from lmlab.training.metrics_file import read_metrics

RunState = Literal["running", "interrupted", "stopped", "failed", "finished"]

_RESTORE_OR_RENAME = "Put the file back, or start again with --fresh (which keeps the old folder under another name)."


@dataclass(frozen=True)
class RunFolder:
    """The paths and small files of a run; making one touches nothing."""

    path: Path

    @property
    def metrics(self) -> Path:
        """The file of records."""
        return self.path / METRICS

    @property
    def checkpoints(self) -> Path:
        """The folder of saved states."""
        return self.path / "checkpoints"

    @property
    def samples(self) -> Path:
        """The folder of generated texts."""
        return self.path / "samples"

    def exists(self) -> bool:
        """Whether a run was begun here.

        Raises:
          RunFolderError: something else is here.
        """
        if (self.path / "config.json").exists():
            return True
        if not self.path.exists():
            return False
        if not self.path.is_dir():
            raise RunFolderError(f"{self.path} is a file. Choose another folder with --run DIR.")
        others = sorted(entry.name for entry in self.path.iterdir() if not entry.name.startswith("."))
        if others:
            raise RunFolderError(
                f"{self.path} is no run folder: it holds {', '.join(others[:5])} and no config.json. "
                "Choose another folder with --run DIR."
            )
        return False

    def resolved(self) -> Resolved:
        """The configuration of the run.

        Raises:
          RunFolderError: there is no run here, or its config.json is damaged.
        """
        path = self.path / "config.json"
        if not path.exists():
            raise RunFolderError(f"{self.path} is no run folder: it has no config.json.")
        saved = read_json(path, _RESTORE_OR_RENAME)
        try:
            return Resolved.from_json(saved)
        except (ConfigError, ValueError, AttributeError) as error:
            raise RunFolderError(f"{path}: {error} {_RESTORE_OR_RENAME}") from error

    def saved_tokenizer(self) -> dict[str, Any] | None:
        """The fitted vocabulary, None for a run without one."""
        path = self.path / "tokenizer.json"
        return read_json(path, _RESTORE_OR_RENAME) if path.exists() else None

    def records(self) -> list[dict[str, Any]]:
        """Everything in metrics.jsonl."""
        return read_metrics(self.metrics)

    def status(self) -> dict[str, Any]:
        """`state`, `step`, `steps` and, after a failure, `message`; empty before the first session."""
        path = self.path / "status.json"
        return read_json(path, "Delete it: the next session writes it anew.") if path.exists() else {}

    def write_status(self, state: RunState, step: int, steps: int, message: str | None = None) -> None:
        """Replaces status.json."""
        now = datetime.now(UTC).isoformat(timespec="seconds")
        status = {"state": state, "step": step, "steps": steps, "updated": now, "message": message}
        replace_json(self.path / "status.json", status)

    def write_config(self, resolved: Resolved) -> None:
        """Writes config.gin and config.json, the latter last: it is what makes the folder a run."""
        with writing(self.path):
            self.path.mkdir(parents=True, exist_ok=True)
        replace_text(self.path / "config.gin", resolved.gin())
        replace_json(self.path / "config.json", resolved.to_json())

    def write_environment(self, environment: Mapping[str, Any]) -> None:
        """Replaces environment.json; what earlier sessions wrote moves to its list `earlier`."""
        path = self.path / "environment.json"
        before = read_json(path, "Delete it: it is written anew.") if path.exists() else None
        earlier = [*before.pop("earlier", []), before] if before else []
        replace_json(path, {**environment, "earlier": earlier})

    def write_tokenizer(self, fitted: Mapping[str, Any]) -> None:
        """Writes the fitted vocabulary."""
        replace_json(self.path / "tokenizer.json", dict(fitted))

    def refuse_another(self, spec: Spec) -> None:
        """ConfigError with the differences, where the run here was of another configuration than `spec`."""
        found = differences(self.resolved().spec, spec)
        if found:
            raise ConfigError(
                f"{self.path} holds a run of another configuration:\n{found}\n"
                "Choose another folder with --run DIR, or keep the old one under another name with --fresh."
            )

    def set_aside(self, what: list[Path]) -> Path:
        """Moves files or folders of this run to a new folder in `set_aside/`, and gives its path."""
        for number in range(1, 10**6):
            target = self.path / "set_aside" / str(number)
            if not target.exists():
                break
        with writing(target):
            target.mkdir(parents=True)
            for entry in what:
                entry.replace(target / entry.name)
        return target

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Holds the folder for this process.

        Raises:
          RunFolderError: another process is training here, or the folder cannot be written.
        """
        with writing(self.path):
            self.path.mkdir(parents=True, exist_ok=True)
            file = (self.path / ".lock").open("a+")
        with file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                file.seek(0)
                raise RunFolderError(
                    f"{self.path} is in use by process {file.read().strip() or '?'}. Wait for it, or choose another "
                    "folder with --run DIR."
                ) from None
            file.truncate(0)
            file.write(str(os.getpid()))
            file.flush()
            yield


def keep_old(path: Path) -> Path | None:
    """Renames the folder at `path`, if there is one, to the first free `path.1`, `path.2`, ...; gives the new path."""
    if not path.exists():
        return None
    number = 1
    while (target := path.with_name(f"{path.name}.{number}")).exists():
        number += 1
    with writing(path):
        path.rename(target)
    return target


def differences(there: Spec, now: Spec) -> str:
    """What differs between two experiments in what is learned, one line each; empty if nothing does."""
    found = diff(identity(there), identity(now))
    return "\n".join(
        f"  {path}: {spell_value(before)} there, {spell_value(after)} now" for path, before, after in found
    )
