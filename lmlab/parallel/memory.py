"""How this process takes memory from the system."""

from __future__ import annotations

import ctypes
import sys

_TRIM_THRESHOLD, _MMAP_MAX, _ARENA_MAX = -1, -4, -8  # of mallopt(3)


def keep_memory() -> None:
    """Has the C library keep what is freed for the next request; call it before there are threads.

    XLA:CPU asks for the temporary arrays of a step anew at each call. glibc answers large requests with fresh pages of
    the system, which are filled with zeros when they are first touched: 5 % of the time of a step of
    `experiments/benchmarks/gpt_6x384.gin`. Other C libraries than glibc are left as they are.
    Memory goes back when the process ends.
    """
    if not sys.platform.startswith("linux"):
        return
    try:
        set_option = ctypes.CDLL(None).mallopt
    except AttributeError:  # musl has no such function
        return
    set_option(_ARENA_MAX, 1)  # freed memory of one thread serves all
    set_option(_MMAP_MAX, 0)
    set_option(_TRIM_THRESHOLD, 2**31 - 1)
