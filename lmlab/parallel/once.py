"""Compiling what runs once."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax


def jit_once(function: Callable[..., Any], **options: Any) -> Callable[..., Any]:
    """`jax.jit` for a program that runs once, such as an initialisation: it is not worth optimizing on a CPU.

    LLVM's optimizations take most of the compilation there: 6.1 s of CPU against 1.8 s without them for the
    initialisation of a 4-layer GPT (jax 0.10.2), which then runs for 0.03 s or 0.3 s.
    """
    quick = {"xla_backend_optimization_level": 0} if jax.default_backend() == "cpu" else None
    return jax.jit(function, compiler_options=quick, **options)
