"""Tiny experiments, resolved in a folder of their own."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest

from lmlab.config import Resolved, resolve

PLUGIN = str(Path(__file__).parent / "bigram_plugin.py")

TINY = """
experiment.model = @bigram
experiment.loss = @autoregressive
experiment.dataset = @random_tokens
experiment.optimizer = @adamw
experiment.steps = 12
experiment.global_batch_size = 8
experiment.seq_len = 7
experiment.log_every = 3
experiment.evaluators = []
experiment.hooks = []
experiment.writers = []
adamw.learning_rate = 0.01
random_tokens.vocab = 11
random_tokens.tokens = 571
mesh.data = 1
checkpoints.every = 0
"""
"""571 tokens are 81 rows: an epoch ends inside the eleventh batch of 8."""

Tiny = Callable[..., Resolved]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working directory."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def tiny(own_catalogue: None, folder: Path) -> Tiny:
    """`tiny("experiment.steps = 5", ...)` resolves the tiny experiment, without bindings of parts that are replaced."""
    parts = {"model": "bigram.", "optimizer": "adamw.", "dataset": "random_tokens.", "partitioner": "mesh."}

    def resolve_tiny(*overrides: str) -> Resolved:
        chosen = "; ".join(overrides)
        unused = tuple(parts[part] for part in parts if f"experiment.{part} = @" in chosen)
        text = "\n".join(line for line in TINY.splitlines() if not line.startswith((*unused, "\n")))
        (folder / "tiny.gin").write_text(text)
        return resolve(["tiny.gin"], overrides, [PLUGIN])

    return resolve_tiny


def without_timing(records: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Records as they must be equal between a run and its repetition."""
    return [{name: value for name, value in record.items() if name != "timing"} for record in records]


def assert_same_arrays(a: Any, b: Any) -> None:
    """Two trees of arrays are equal to the bit."""
    assert jax.tree.structure(a) == jax.tree.structure(b)
    for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
        x, y = np.asarray(x), np.asarray(y)
        assert (x.shape, x.dtype) == (y.shape, y.dtype)
        assert x.tobytes() == y.tobytes()


def flip_byte(path: Path, at: int) -> Mapping[Path, bytes]:
    """Inverts one byte of a file; gives what to write back."""
    before = path.read_bytes()
    changed = bytearray(before)
    changed[at] ^= 0xFF
    path.write_bytes(bytes(changed))
    return {path: before}


def write_documents(folder: Path) -> None:
    """Sixty short files in `text/`."""
    (folder / "text").mkdir()
    rng = np.random.default_rng(0)
    for i in range(60):
        (folder / "text" / f"{i}.txt").write_text("".join(rng.choice(list("abcdefg \n"), rng.integers(3, 60))))
