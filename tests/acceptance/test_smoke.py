"""A whole life in miniature, on whatever Python and jax are there: train, stop, go on, measure, generate."""

from pathlib import Path

import pytest

import lmlab
from lmlab.cli.main import main

ROOT = Path(__file__).parents[2]

TINY = [
    "experiment.steps = 8; experiment.seq_len = 13; experiment.global_batch_size = 4; experiment.log_every = 2",
    "gpt.layers = 2; gpt.width = 12; gpt.heads = 3; samples.length = 11; perplexity.batches = 2",
    "stdlib.parts = 'topics'; mesh.data = 1; warmup_stable_decay.warmup = 2",
]


@pytest.mark.smoke
def test_a_run_is_trained_stopped_resumed_measured_and_sampled(tmp_path, capsys):
    pytest.importorskip("lmlab_third_party", reason="the plug-ins are there once lmlab is installed")
    quickstart, folder = ROOT / "experiments/quickstart.gin", tmp_path / "run"
    stopped = lmlab.train(quickstart, overrides=[*TINY, "experiment.stop_at = 4"], run=folder)
    assert (stopped.status, stopped.step) == ("stopped", 4)
    run = lmlab.train(quickstart, overrides=TINY, run=folder)
    assert (run.status, run.step) == ("finished", 8)
    assert [record["step"] for record in run.metrics() if record["phase"] == "train"] == [2, 4, 6, 8]
    assert main(["eval", str(folder), "--split", "test", "--batches", "1"]) == 0
    assert "bits_per_byte" in capsys.readouterr().out
    assert main(["generate", str(folder), "--prompt", "The ", "--length", "7", "--temperature", "0"]) == 0
    assert capsys.readouterr().out.startswith("The ")


@pytest.mark.smoke
@pytest.mark.parametrize("file", sorted((ROOT / "experiments/benchmarks").glob("*.gin")), ids=lambda file: file.stem)
def test_the_benchmarks_fit_together(file, capsys):
    assert main(["check", str(file), "--set", "mesh.data = 1"]) == 0
    assert "parameters" in capsys.readouterr().out
