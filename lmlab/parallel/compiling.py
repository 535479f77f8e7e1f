"""How programs are compiled: those that run once, and those that run all day."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import jax
import jaxlib.version

QUICK: dict[str, Any] = {"xla_backend_optimization_level": 0}
if jaxlib.version.__version__.startswith("0.10."):  # later ones have one way of emitting fusions, and no such options
    QUICK |= {"xla_cpu_use_fusion_emitters": False, "xla_cpu_parallel_codegen_split_count": 1}
"""What makes XLA:CPU compile fast: without LLVM's optimizations, and by the cheaper of two ways of emitting fusions."""


def jit_once(function: Callable[..., Any], **options: Any) -> jax.stages.Wrapped:
    """`jax.jit` for a program that runs once, such as an initialisation: it is not worth optimizing on a CPU.

    LLVM's optimizations take most of the compilation there: 6.1 s of CPU against 1.8 s without them for the
    initialisation of a 4-layer GPT (jax 0.10.2), which then runs for 0.03 s or 0.3 s. The other options halve the rest.
    """
    quick = QUICK if jax.default_backend() == "cpu" else None
    return jax.jit(function, compiler_options=quick, **options)


def compile_once(function: Callable[..., Any], *args: Any, **options: Any) -> jax.stages.Compiled:
    """`function` for arguments of these shapes, compiled as `jit_once` does."""
    return _shared(jit_once(function, **options).lower(*args), "once", jax.stages.Lowered.compile)


def compile_for_speed(lowered: jax.stages.Lowered) -> jax.stages.Compiled:
    """The compiled program of a step.

    On a CPU, XLA's library YNN is kept for reductions only: its products took 1.2 times (large matrices) to 1.8 times
    (one small product per head) as long as Eigen's (jax 0.10.2, 2 cores with AVX-512).
    """
    options: dict[str, Any] = {"xla_cpu_experimental_ynn_fusion_type": "LIBRARY_FUSION_TYPE_REDUCE"}
    return _shared(
        lowered,
        "for speed",
        lambda lowered: lowered.compile(compiler_options=options if jax.default_backend() == "cpu" else None),
    )


_SHARED: dict[Any, jax.stages.Compiled] | None = None


@contextmanager
def shared_programs() -> Iterator[None]:
    """Inside, what is lowered to the same text is compiled once in this process: for runs that resemble each other.

    The programs are kept until the end.
    """
    global _SHARED
    before, _SHARED = _SHARED, {}
    try:
        yield
    finally:
        _SHARED = before


def _shared(
    lowered: jax.stages.Lowered, way: str, compile_it: Callable[[jax.stages.Lowered], jax.stages.Compiled]
) -> jax.stages.Compiled:
    """The compiled program, or one that was lowered to the same text and compiled in the same way."""
    if _SHARED is None:
        return compile_it(lowered)
    key = (way, lowered.as_text(), lowered.in_tree, lowered.out_tree)  # the text leaves out arguments that are not read
    if key not in _SHARED:
        _SHARED[key] = compile_it(lowered)
    return _SHARED[key]
