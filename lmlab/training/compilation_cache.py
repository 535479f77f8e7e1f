"""The compilation cache on disk: a program that was compiled once starts in seconds the next time."""

from __future__ import annotations

import os
from pathlib import Path

import jax


def use_compilation_cache() -> Path | None:
    """Turns jax's persistent compilation cache on for this process, and gives its folder.

    The folder is `$LMLAB_CACHE`, or `lmlab` in the user's cache folder. With `JAX_COMPILATION_CACHE_DIR` set, jax's own
    settings stand and nothing is done; with `LMLAB_CACHE` set to nothing, there is no cache.
    """
    if "JAX_COMPILATION_CACHE_DIR" in os.environ or os.environ.get("LMLAB_CACHE") == "":
        return None
    users = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "lmlab"
    folder = Path(os.environ.get("LMLAB_CACHE") or users) / "xla"
    jax.config.update("jax_compilation_cache_dir", str(folder))
    # By default, programs that compile in under a second are left out: starting a run compiles dozens of these.
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
    jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)
    return folder
