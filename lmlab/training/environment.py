"""What a run was made by and on: versions, source code, devices and flags, without names of people or machines."""

from __future__ import annotations

import functools
import os
import platform
import subprocess
import sys
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

import jax

import lmlab

PACKAGES = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "grain", "gin-config", "numpy")
VARIABLES = ("XLA_", "JAX_", "LMLAB_", "CUDA_VISIBLE_DEVICES", "TPU_", "LIBTPU_", "NCCL_", "OMP_NUM_THREADS")
LONGEST_DIFF = 200_000
"""Characters of an uncommitted diff that are kept."""


def describe_environment() -> dict[str, Any]:
    """Facts that a reader needs to run the same thing again, as plain JSON data. Starts jax's devices."""
    return {
        "started": datetime.now(UTC).isoformat(timespec="seconds"),
        "command": sys.argv,
        "python": platform.python_version(),
        "platform": platform.platform(),
        "versions": versions(),
        "git": {
            "lmlab": _own_code(),
            "working_folder": git_state(Path.cwd()),
        },
        "devices": [f"{device.platform}:{device.id} {device.device_kind}" for device in jax.devices()],
        "processes": jax.process_count(),
        "cpus": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "variables": {name: value for name, value in sorted(os.environ.items()) if name.startswith(VARIABLES)},
    }


@functools.cache
def versions() -> dict[str, str | None]:
    """The versions of lmlab and of the packages that its numbers come from; None where one is not installed."""
    return {name: _version(name) for name in ("lmlab", *PACKAGES)}


@functools.cache
def _own_code() -> dict[str, Any] | None:
    """The state of lmlab's repository when this process first asked: what changes there later is not what it runs."""
    return git_state(Path(lmlab.__path__[0]))


def git_state(folder: Path) -> dict[str, Any] | None:
    """The commit, the uncommitted diff and the untracked files of the repository around `folder`; None without one."""
    commit = _git(folder, "rev-parse", "HEAD")
    if commit is None:
        return None
    diff = _git(folder, "diff", "HEAD") or ""
    cut = f"\n... ({len(diff) - LONGEST_DIFF:,} more characters)" if len(diff) > LONGEST_DIFF else ""
    untracked = (_git(folder, "ls-files", "--others", "--exclude-standard") or "").splitlines()
    return {
        "commit": commit.strip(),
        "dirty": bool(diff),
        "diff": diff[:LONGEST_DIFF] + cut,
        "untracked": untracked[:1000],
    }


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _git(folder: Path, *arguments: str) -> str | None:
    """The output of git in `folder`; None where there is no git, no repository or no commit."""
    command = ["git", "-C", str(folder), "--no-optional-locks", *arguments]
    try:
        done = subprocess.run(command, capture_output=True, timeout=30, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.decode("utf-8", "replace")
