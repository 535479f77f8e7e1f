"""One test session: eight fake CPU devices, and one compilation cache for all tests and the processes they start."""

import gc
import os
import sys
import tempfile
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path

import pytest
from hypothesis import settings

from tests.later import repeats

settings.register_profile("patient", deadline=None)  # a slow machine is no failure
settings.load_profile("patient")

# Set before jax is imported anywhere. Child processes (`lmlab train ...`) choose their own number of devices.
# Programs of the tests run for milliseconds and compile for seconds: LLVM's optimizations, which take three quarters of
# that, are left out (10.1 s -> 4.1 s of CPU for a tiny GPT's step, 12.1 s -> 1.7 s for its initialisation), and of the
# two ways of emitting a fusion the one that compiles in half the time is taken, where there still are two.
FLAGS = ["--xla_force_host_platform_device_count=8", "--xla_backend_optimization_level=0"]
if version("jaxlib").startswith("0.10."):  # later ones refuse what they do not know
    FLAGS += ["--xla_cpu_use_fusion_emitters=false", "--xla_cpu_parallel_codegen_split_count=1"]
for flag in FLAGS:
    if flag.split("=")[0] not in os.environ.get("XLA_FLAGS", ""):
        os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} {flag}".strip()
_cache = Path(tempfile.gettempdir()) / f"lmlab-tests-{os.getuid()}"
os.environ["HF_HUB_OFFLINE"] = "1"  # no test asks the network
os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(_cache))
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES", "-1")


def pytest_collection_finish() -> None:
    """Modules and tests stay until the end: the collector of cycles need not look at them again and again."""
    gc.freeze()
    gc.set_threshold(50_000, 20, 20)


@pytest.fixture
def own_catalogue(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """What a test registers is gone after it, and the plug-in files that it loads are loaded anew in the next one."""
    from lmlab import registry

    monkeypatch.setattr(registry.CATALOGUE, "_entries", dict(registry.CATALOGUE.entries()))
    before = set(sys.modules)
    yield
    for name in set(sys.modules) - before:
        if name.startswith("lmlab_plugin_"):
            del sys.modules[name]


def pytest_collection_modifyitems(items):
    for item in items:
        if repeats(item.nodeid):
            item.add_marker(pytest.mark.long)
