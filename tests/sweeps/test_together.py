"""Trials with one program: each is what it is alone, whatever the others are."""

from __future__ import annotations

import json
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest

from lmlab.config import resolve_variants, with_values
from lmlab.parallel.compiling import compile_once, jit_once, shared_programs
from lmlab.sweeps.together import Together, differing, numbers_of, shape_hash
from lmlab.training.loop import train
from lmlab.training.run import Run

BASE = """
experiment.model = @gpt
experiment.loss = @autoregressive
experiment.dataset = @random_tokens
experiment.optimizer = @adamw
experiment.steps = 20
experiment.global_batch_size = 3
experiment.seq_len = 7
experiment.log_every = 1
experiment.hooks = []
experiment.writers = []
experiment.steps_per_dispatch = 1
random_tokens.vocab = 13
gpt.layers = 1
gpt.width = 8
gpt.heads = 2
adamw.learning_rate = @cosine()
cosine.peak = 0.01
cosine.warmup = 3
perplexity.batches = 1
mesh.data = 1
"""
MEMBERS = [
    {"cosine.peak": "0.01", "experiment.seed": "0", "autoregressive.label_smoothing": "0.0", "gpt.dropout": "0.1"},
    {"cosine.peak": "1e30", "experiment.seed": "3", "autoregressive.label_smoothing": "0.1", "gpt.dropout": "0.0"},
    {"cosine.peak": "0.03", "experiment.seed": "4294967295", "autoregressive.label_smoothing": "0.3",
     "gpt.dropout": "0.2"},
]  # fmt: skip


def members(*more: str):
    return [variant.resolved for variant in resolve_variants([], [BASE, *more], [], MEMBERS)]


def curve(folder: Path) -> list[dict]:
    records = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [{key: value for key, value in record.items() if key != "timing"} for record in records]


def close(here: dict, there: dict) -> None:
    assert here.keys() == there.keys()
    for key in here.keys() - {"phase"}:
        within = 1e-5 if key in ("loss", "valid/nats_per_token") else 1e-4  # a norm of gradients is no curve
        assert here[key] == pytest.approx(there[key], rel=within, abs=within), (key, here["step"])


def test_a_member_is_what_it_is_alone(tmp_path: Path) -> None:
    found = members()
    specs = [one.spec for one in found]
    assert len({shape_hash(spec) for spec in specs}) == 1
    paths = differing(specs)
    assert set(paths) == {"model.dropout", "loss.label_smoothing", "optimizer.learning_rate.peak", "seed"}
    group = Together(paths)
    with shared_programs():
        for number, resolved in enumerate(found):
            train(resolved, tmp_path / f"together{number}", make=group.make)
    assert group.compiled == 1
    for number in (0, 2):  # the one between them, of a huge rate, diverges
        alone = train(found[number], tmp_path / f"alone{number}")
        together = Run(tmp_path / f"together{number}")
        for here, there in zip(curve(alone.folder), curve(together.folder), strict=True):
            close(here, there)
        assert together.resolved == alone.resolved
        state, note = together.restore()
        assert note.step == 20 and not state.model_state
    assert any(record["skipped"] for record in curve(tmp_path / "together1") if record["phase"] == "train")


def test_a_member_is_resumed_alone_and_ends_where_it_would_have(tmp_path: Path) -> None:
    found = members()[:1]
    group = Together(("seed", "optimizer.learning_rate.peak"))
    half = with_values(found[0].spec, {"stop_at": 10})
    train(type(found[0])(half), tmp_path / "run", make=group.make)
    train(found[0], tmp_path / "run")
    train(found[0], tmp_path / "alone")
    assert [r["step"] for r in curve(tmp_path / "run")] == [r["step"] for r in curve(tmp_path / "alone")]
    for here, there in zip(curve(tmp_path / "run"), curve(tmp_path / "alone"), strict=True):
        close(here, there)


def test_a_number_that_python_must_know_has_a_program_for_each(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    plugin = tmp_path / "picky.py"
    plugin.write_text(
        "import optax\nfrom dataclasses import dataclass\nfrom lmlab.registry import optimizers\n"
        "@optimizers.register('picky')\n@dataclass(frozen=True)\nclass Picky:\n    '''.'''\n    rate: float = 0.1\n"
        "    def transformation(self, roles):\n        return optax.sgd(0.1 if self.rate > 0.5 else 0.01)\n"
    )
    texts = [{"picky.rate": "0.1"}, {"picky.rate": "0.9"}]
    base = BASE.replace("@adamw", "@picky").split("adamw.learning_rate")[0] + "perplexity.batches = 1\nmesh.data = 1"
    base = base.replace("experiment.steps = 20", "experiment.steps = 2")
    found = [variant.resolved for variant in resolve_variants([], [base], [str(plugin)], texts)]
    group = Together(differing([one.spec for one in found]))
    runs = [train(one, tmp_path / one.hash, make=group.make) for one in found]
    assert "this trial's step is compiled for itself" in capsys.readouterr().err
    moved = [curve(run.folder)[1]["loss"] for run in runs]
    assert moved[0] != moved[1]


def test_numbers_are_those_of_what_learns_alone() -> None:
    spec = members()[0].spec
    assert {"seed", "clip_norm", "model.dropout", "optimizer.learning_rate.peak"} <= numbers_of(spec).keys()
    assert not any(path.startswith(("dataset", "evaluators", "checkpoints")) for path in numbers_of(spec))
    assert shape_hash(spec) != shape_hash(with_values(spec, {"steps": 21}))
    assert shape_hash(spec) != shape_hash(with_values(spec, {"clip_norm": None}))
    assert shape_hash(spec) == shape_hash(with_values(spec, {"clip_norm": 0.5, "seed": 9}))


def test_programs_are_shared_only_if_every_constant_is_the_same() -> None:
    tables = [np.zeros(20_000, np.float32), np.zeros(20_000, np.float32)]
    tables[1][10_000] = 1
    zero = jnp.float32(0)
    with shared_programs():
        sums = [float(compile_once(lambda x, table=table: (x + table).sum(), zero)(zero)) for table in tables]
    assert sums == [0, 1]
    assert float(jit_once(lambda x: x + 1)(1.0)) == 2
