"""Runs with an adapter: trained from another run, stopped and resumed, read by every command, merged."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lmlab.cli.main import main
from lmlab.config import resolve
from lmlab.generation.decoding import Decoder
from lmlab.generation.samplers import Greedy
from lmlab.generation.saved import SavedRun
from lmlab.nn.adapters import ADAPTER
from lmlab.training.loop import train
from lmlab.training.program import Program
from lmlab.training.run import Run
from tests.acceptance.small import SMALL

GPT = """
experiment.model = @gpt
experiment.loss = @autoregressive
experiment.dataset = @text_files
text_files.train = '{folder}/corpus.txt'
text_files.split_by = 'position'
text_files.valid_share = 0.2
text_files.test_share = 0.2
gpt.width = 12
gpt.heads = 3
gpt.layers = 2
gpt.init_std = 0.5
"""
ADAPTED = """
experiment.init_from = @init_from
init_from.run = '{folder}/base'
experiment.adapter = @lora
lora.rank = 2
lora.kernels = ['/(q|v)/kernel$', 'up/kernel$']
lora.train = ['^norm/']
experiment.ema = 0.5
"""
AT_LENGTH = "experiment.steps = 4; checkpoints.every = 2; adamw.learning_rate = 0.1"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A base, and a run of 4 steps with an adapter on it, saved after 2, whose rate is high."""
    folder = tmp_path_factory.mktemp("adapters")
    (folder / "corpus.txt").write_text("to be or not to be, that is the question\n" * 40)
    base, more = GPT.format(folder=folder), ADAPTED.format(folder=folder)
    train(resolve([], [SMALL, base]), folder / "base")
    train(resolve([], [SMALL, base, more, AT_LENGTH]), folder / "lora")
    assert main(["merge", str(folder / "lora"), "--run", str(folder / "merged")]) == 0
    return folder


def test_only_the_adapter_and_what_is_named_learn_and_have_a_state(folder):
    base, adapted = Run(folder / "base").state.params, Run(folder / "lora").state
    learned = {path for path in base if np.any(base[path] != adapted.params[path])}
    assert learned == {"norm/scale", "norm/bias"}
    assert adapted.opt_state["ema"].keys() == learned | {path for path in adapted.params if path.startswith(ADAPTER)}
    moments = adapted.opt_state["update"][0].mu
    assert moments.keys() == adapted.opt_state["ema"].keys()
    assert sum(moment.size for moment in moments.values()) < sum(value.size for value in base.values()) / 5


def test_its_checkpoints_hold_what_learns_and_the_model_is_there_once(folder):
    size = lambda path: sum(file.stat().st_size for file in path.rglob("*d/*") if file.is_file())  # noqa: E731  # data
    run, base = folder / "lora", folder / "base"
    assert 0 < size(run / "checkpoints" / "4") < size(run / "frozen") < size(base / "checkpoints" / "2")


def test_it_goes_on_to_the_bit(folder):
    shutil.copytree(folder / "lora", folder / "again")
    resolved = Run(folder / "lora").resolved
    again = train(resolved, folder / "again", from_step=2)
    whole = jax.device_get(Run(folder / "lora").state)
    jax.tree.map(np.testing.assert_array_equal, jax.device_get(again.state), whole)


def test_merged_it_says_the_same(folder, capsys):
    adapted, merged = SavedRun(str(folder / "lora")), SavedRun(str(folder / "merged"))
    assert merged.program.experiment.adapter is None and merged.program.experiment.init_from is None
    assert merged.params().keys() == Run(folder / "base").state.params.keys()
    prompts = [adapted.program.tokenizer.encode(text) for text in ("to be", "or not")]
    logits, texts = [], []
    for saved in (adapted, merged):
        params, model = saved.params(), saved.program.model
        logits.append(model.bind(params).logits(jnp.asarray(prompts[0])[None]))
        decoder = Decoder(model, Greedy(), end_of_text=None, limit=16)
        texts.append(np.stack(decoder.complete(params, prompts, length=7)))
    np.testing.assert_allclose(logits[0], logits[1], rtol=1e-5, atol=1e-5)
    np.testing.assert_array_equal(texts[0], texts[1])
    scores = []
    for name in ("lora", "merged", "base"):
        assert main(["score", str(folder / name), "to be or"]) == 0
        scores.append(capsys.readouterr().out)
    assert scores[0] == scores[1] != scores[2]


def test_parameters_split_over_devices_learn_the_same(folder):
    lines = [SMALL.replace("mesh.data = 1", ""), GPT.format(folder=folder), "experiment.adapter = @lora; lora.rank = 2"]
    found = []
    for layout in ("mesh.data = 1", "mesh.data = 2; mesh.fsdp = 2; mesh.tensor = 1; experiment.microbatches = 1"):
        program = Program(resolve([], [*lines, layout]))
        step, state = program.compile_step(), program.init_state()
        for number in range(2):
            batch = program.data.train.batch(number, program.partitioner.rows(4))
            state, _ = step(state, program.partitioner.place(batch))
        found.append(jax.device_get(state.params))
    for path, value in found[0].items():
        np.testing.assert_allclose(found[1][path], value, atol=1e-5, err_msg=path)


def test_what_would_lose_an_adapter_is_refused(folder, capsys):
    gin = folder / "further.gin"
    gin.write_text(SMALL + GPT.format(folder=folder))
    start = f"experiment.init_from = @init_from; init_from.run = '{folder / 'lora'}'"
    assert main(["train", str(gin), "--run", str(folder / "further"), "--set", start]) == 4
    said = capsys.readouterr().err
    assert "has an adapter" in said and "lmlab merge" in said
    assert main(["merge", str(folder / "base"), "--run", str(folder / "never")]) == 2
    assert "the run has no adapter" in capsys.readouterr().err
    assert not (folder / "never").exists()
    assert main(["merge", str(folder / "lora"), "--run", str(folder / "base")]) == 6
    assert "holds a run" in capsys.readouterr().err


def test_the_configuration_of_a_merged_run_is_whole(folder):
    saved = json.loads((folder / "merged" / "config.json").read_text())
    assert saved["spec"]["kwargs"]["adapter"] is None
    assert resolve([str(folder / "merged" / "config.gin")]).spec == Run(folder / "merged").resolved.spec


def test_integers_are_made_of_the_merged_run(folder: Path, tmp_path: Path, capfd: pytest.CaptureFixture):
    pytest.importorskip("qwix")
    assert main(["quantize", str(folder / "lora"), "--run", str(tmp_path / "int8")]) == 2
    assert "lmlab merge" in capfd.readouterr().err
    assert not (tmp_path / "int8").exists()
