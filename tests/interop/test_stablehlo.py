"""Runs exported as StableHLO: another process, which has no lmlab, writes the same tokens from the same logits."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest

from lmlab.cli.main import main
from lmlab.errors import RunFolderError
from lmlab.generation.decoding import Decoder
from lmlab.generation.samplers import Greedy
from lmlab.generation.saved import SavedRun
from lmlab.interop.inference import Inference
from lmlab.interop.stablehlo import export_stablehlo
from lmlab.testing.tiny import tiny_run

pytest.importorskip("safetensors")
pytest.importorskip("flatbuffers")

CAUSAL = {"gpt": "autoregressive", "lstm": "classification"}
MORE = {"llama": "autoregressive", "mamba": "autoregressive", "retention": "autoregressive", "tcn": "autoregressive",
        "hyena": "autoregressive", "linear_attention": "autoregressive", "gru": "autoregressive",
        "hmm": "autoregressive", "nplm": "autoregressive"}  # fmt: skip
PROMPTS = [[3, 1, 4], [1], [5, 9, 2, 6]]
LENGTH = 3

ELSEWHERE = """
import importlib.util, json, sys
from pathlib import Path

class NoLmlab:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in ("lmlab", "lmlab_third_party"):
            raise ModuleNotFoundError(name)

sys.meta_path.insert(0, NoLmlab())
try:
    import lmlab
except ModuleNotFoundError:
    pass
else:
    sys.exit("lmlab can be imported here")

import numpy as np
folder, prompts, length = Path(sys.argv[1]), json.loads(sys.argv[2]), int(sys.argv[3])
for own in sorted(path for path in folder.iterdir() if path.is_dir()):
    spec = importlib.util.spec_from_file_location("run", own / "run.py")
    run = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(run)
    exported = run.Exported(own)
    rows, seen = exported.greedy(prompts, length)
    tokens = np.array([prompt[:1] * 5 for prompt in prompts], np.int32)
    score = exported.functions["score"](exported.parameters, tokens)
    written = {f"row{number}": row for number, row in enumerate(rows)}
    np.savez(folder / f"{own.name}.npz", logits=np.stack(seen, 1), score=score, **written)
"""


Shelf = dict[str, tuple[SavedRun, dict[str, Any]]]


def saved_runs(chosen: dict[str, str]) -> Shelf:
    """Each model's smallest run, and its parameters."""
    found = {name: SavedRun(str(tiny_run(name, loss))) for name, loss in chosen.items()}
    return {name: (saved, dict(saved.params())) for name, saved in found.items()}


def written_elsewhere(runs: Shelf, folder: Path) -> Path:
    """What another process makes of their exports: it has no lmlab and sees the folders only."""
    for name, (saved, params) in runs.items():
        export_stablehlo(saved.program, params, folder / name, baked=name == "lstm")
    done = subprocess.run(
        [sys.executable, "-I", "-c", ELSEWHERE, str(folder), json.dumps(PROMPTS), str(LENGTH)],
        cwd=folder, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return folder


def check_same(runs: Shelf, folder: Path, name: str) -> None:
    saved, params = runs[name]
    theirs = np.load(folder / f"{name}.npz")
    decoder = Decoder(saved.program.model, Greedy(), end_of_text=None)
    prompts = [np.array(prompt, np.int32) for prompt in PROMPTS]
    model = saved.program.model.bind(params)
    for number, row in enumerate(decoder.complete(params, prompts, length=LENGTH)):
        np.testing.assert_array_equal(theirs[f"row{number}"], row)
        read = np.append(prompts[number], row)[None, :-1]
        logits = model.project(model.hidden(read)[0])[0, -LENGTH:]
        np.testing.assert_allclose(theirs["logits"][number], logits, atol=1e-4)
    again = np.array([prompt[:1] * 5 for prompt in PROMPTS], np.int32)
    np.testing.assert_allclose(theirs["score"], model.project(model.hidden(again)[0]), atol=1e-4)


@pytest.fixture(scope="module")
def runs() -> Shelf:
    return saved_runs(CAUSAL)


@pytest.fixture(scope="module")
def elsewhere(runs: Shelf, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return written_elsewhere(runs, tmp_path_factory.mktemp("stablehlo"))


@pytest.mark.parametrize("name", CAUSAL)
def test_a_process_without_lmlab_writes_the_same(runs: Shelf, elsewhere: Path, name: str):
    check_same(runs, elsewhere, name)


@pytest.mark.long
def test_the_same_of_other_models(tmp_path: Path):
    others = saved_runs(MORE)
    written_elsewhere(others, tmp_path)
    for name in others:
        check_same(others, tmp_path, name)


def test_the_manifest_says_what_there_is(runs: Shelf, elsewhere: Path):
    manifest = json.loads((elsewhere / "gpt" / "manifest.json").read_text())
    program = runs["gpt"][0].program
    assert list(manifest["functions"]) == ["begin", "prefill", "step", "score"]
    assert manifest["functions"]["step"]["results"]["logits"] == {
        "shape": ["batch", program.data.vocab], "dtype": "float32",
    }  # fmt: skip
    assert manifest["longest"] == program.experiment.seq_len
    written = {path.name for path in (elsewhere / "gpt").iterdir() if path.is_file()} - {"manifest.json"}
    assert written == manifest["sha256"].keys()
    assert not list((elsewhere / "lstm").glob("*.safetensors"))  # baked


@pytest.mark.parametrize("name, loss", [pytest.param("bert", "mlm", marks=pytest.mark.long), ("bilstm", "tagging")])
def test_encoders(name: str, loss: str, tmp_path: Path):
    saved = SavedRun(str(tiny_run(name, loss)))
    params = dict(saved.params())
    inference = Inference(saved.program)
    export_stablehlo(saved.program, params, tmp_path / "out")
    call = jax.export.deserialize(bytearray((tmp_path / "out" / "encode.stablehlo").read_bytes())).call
    tokens = np.random.default_rng(1).integers(0, saved.program.data.vocab, (3, 5)).astype(np.int32)
    segments = (np.arange(5) < np.array([[5], [2], [4]])).astype(np.int32)
    types = np.tile(np.array([0, 0, 1, 1, 1], np.int32), (3, 1))
    states, logits, pooled = call(inference.parameters(params), tokens, segments, types)
    model = saved.program.model.bind(params)
    own = model.encode(tokens, segment_ids=segments, type_ids=types)
    there = segments > 0
    np.testing.assert_allclose(states[there], own[there], atol=1e-4)
    np.testing.assert_allclose(logits[there], model.project(own)[there], atol=1e-4)
    np.testing.assert_allclose(pooled, model.pool(own, segment_ids=segments), atol=1e-4)
    assert any(path.startswith("task_head/") for path in inference.left_out) == (loss == "tagging")


LONG = [pytest.param(name, marks=pytest.mark.long) for name in ("encoder_decoder", "t5")]


@pytest.mark.parametrize("name", ["rnn_seq2seq", *LONG])
def test_targets_of_sources(name: str, tmp_path: Path):
    saved = SavedRun(str(tiny_run(name, "seq2seq")))
    params = dict(saved.params())
    inference = Inference(saved.program)
    export_stablehlo(saved.program, params, tmp_path / "out")
    read_source, begin, step = (
        jax.jit(jax.export.deserialize(bytearray((tmp_path / "out" / f"{part}.stablehlo").read_bytes())).call)
        for part in ("read_source", "begin", "step")
    )
    rng, own = np.random.default_rng(1), inference.parameters(params)
    sources = rng.integers(1, saved.program.data.vocab, (2, 5)).astype(np.int32)
    there = (np.arange(5) < np.array([[5], [3]])).astype(np.int32)
    targets = rng.integers(1, saved.program.data.vocab, (2, 4)).astype(np.int32)
    memory = read_source(own, sources, there)
    cache, seen = begin(own, memory, np.zeros((2, 4), np.int32)), []
    for tokens in targets.T:
        logits, cache = step(own, memory, cache, tokens)
        seen.append(logits)
    model = saved.program.model.bind(params)
    states, _ = model.decode(targets, model.encode_source(sources, segment_ids=there))
    np.testing.assert_allclose(np.stack(seen, 1), model.project(states), atol=1e-4)


def test_what_cannot_be_exported_is_refused_in_one_line(tmp_path: Path, capfd: pytest.CaptureFixture):
    for name, loss in (("ngram", "autoregressive"), ("text_vae", "elbo")):
        run = tiny_run(name, loss)
        assert main(["export", str(run), str(tmp_path / "out"), "--format", "stablehlo"]) == 2
        said = capfd.readouterr().err.strip()
        assert name in said and "\n" not in said
        assert not (tmp_path / "out").exists()
    run = tiny_run("lstm", "autoregressive")
    assert main(["export", str(run), str(tmp_path / "out"), "--baked"]) == 2
    assert "--baked" in capfd.readouterr().err


def test_a_folder_with_something_in_it_stays_as_it_is(runs: Shelf, tmp_path: Path):
    (tmp_path / "mine").write_text("mine")
    with pytest.raises(RunFolderError, match="not empty"):
        export_stablehlo(runs["lstm"][0].program, runs["lstm"][1], tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["mine"]


def test_what_the_program_beside_an_export_cannot_do_is_one_line(elsewhere: Path, tmp_path: Path):
    folder = Path(shutil.copytree(elsewhere / "gpt", tmp_path / "gpt"))

    def said(*words: str) -> str:
        done = subprocess.run([sys.executable, str(folder / "run.py"), *words], capture_output=True, text=True)
        assert done.returncode == 2 and "Traceback" not in done.stderr
        return done.stderr

    assert "positions for 7 tokens, not 22" in said("1 2")
    with (folder / "model.safetensors").open("r+b") as file:
        file.seek(-1, 2)
        file.write(b"\xff")
    assert "model.safetensors is damaged" in said("1 2")
