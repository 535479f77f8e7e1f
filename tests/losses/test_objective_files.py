"""The experiments under experiments/objectives: what they name fits, down to the shapes of their batches."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import pytest

from lmlab.config import resolve
from lmlab.testing.tiny import small_files
from lmlab.training.program import Program

ROOT = Path(__file__).parents[2]
FILES = sorted(path.stem for path in (ROOT / "experiments" / "objectives").glob("*.gin") if path.stem != "optimizer")
LABELLED = """
tasks.datasets = [@table_labelled, @conll]
table_labelled.train = '{folder}/rows.jsonl'
table_labelled.valid_share = 0.2
conll.train = '{folder}/tagged.conll'
conll.valid_share = 0.2
mesh.data = 1
"""
REPORTS = {
    "distillation": {"kl", "nats"},
    "multi_task": {"classification/accuracy", "classification/loss", "tagging/loss"},
    "prefix_lm": {"nats", "accuracy"},
    "sop": {"order_nats", "order_accuracy", "chosen"},
    "span_corruption": {"nats", "sequence_accuracy/teacher_forced"},
}


@pytest.mark.parametrize("name", FILES)
def test_an_experiment_reports_what_its_loss_does(name: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(ROOT)
    for n in range(5):
        (tmp_path / f"{n}.txt").write_text("It is so. It was not.\nHence it goes on. Why does it?\n" * 20)
    here = [f"experiment.dataset = @text_files; text_files.train = '{tmp_path}/*.txt'; mesh.data = 1"]
    if name == "multi_task":
        here = [LABELLED.format(folder=small_files())]
    program = Program(resolve([f"experiments/objectives/{name}.gin"], here))

    def metrics(params: Any, batch: Any) -> Any:
        return program.loss(program.model.bind(params), batch, None, jnp.int32(0)).metrics

    assert REPORTS[name] <= set(jax.eval_shape(metrics, program.model.shapes, program.abstract_batch))


def test_every_file_is_known_here() -> None:
    assert set(FILES) == set(REPORTS)
