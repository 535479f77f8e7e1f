"""`lmlab embed`: vectors against each text read alone, and what is near to what."""

from __future__ import annotations

from pathlib import Path

import jax
import numpy as np
import pytest

from lmlab.cli.main import main
from lmlab.config import resolve
from lmlab.evaluation.text_batches import ROWS
from lmlab.evaluation.text_vectors import text_vectors
from lmlab.generation.saved import SavedRun
from lmlab.training.loop import train
from tests.acceptance.small import SMALL

LABELLED = """
bytes.specials = ['classify', 'separator']
experiment.loss = @classification
experiment.dataset = @table_labelled
table_labelled.train = '{folder}/table.tsv'
table_labelled.text = 'text'
table_labelled.label = 'label'
"""
MODELS = {
    "bert": "experiment.model = @bert; bert.width = 6; bert.heads = 3; bert.layers = 1; bert.init_std = 0.5",
    "bilstm": "experiment.model = @bilstm; bilstm.width = 6; bilstm.layers = 1; bilstm.init_scale = 0.5",
    "gpt": "experiment.model = @gpt; gpt.width = 6; gpt.heads = 3; gpt.layers = 1; gpt.init_std = 0.5",
}
TEXTS = ["to be", "tö", "or not to be"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("embed")
    (folder / "table.tsv").write_text("text\tlabel\n" + "".join(f"{n} dogs\t{n % 2}\n" for n in range(30)))
    (folder / "among.txt").write_text("or not to be\nto be\n\nxyzzy\n")
    for name, model in MODELS.items():
        train(resolve([], [SMALL, LABELLED.format(folder=folder), model]), folder / name)
    return folder


def states_of(saved: SavedRun, text: str) -> np.ndarray:
    """Of a text that is read alone, with what stands around it."""
    tokenizer, params = saved.program.tokenizer, saved.params()
    assert tokenizer is not None
    special = tokenizer.special_ids
    ids = np.concatenate([[special["classify"]], tokenizer.encode(text), [special["separator"]]]).astype(np.int32)
    model = saved.program.model.bind(params)
    name = saved.program.experiment.model.name
    return np.float64(model.hidden(ids[None])[0][0] if name == "gpt" else jax.jit(model.encode)(ids[None])[0])


def alone(saved: SavedRun, text: str) -> np.ndarray:
    """The vector of a text that is read alone, from the model's states."""
    states, params, name = states_of(saved, text), saved.params(), saved.program.experiment.model.name
    if name == "bert":
        return np.tanh(states[0] @ np.float64(params["pooler/kernel"]) + np.float64(params["pooler/bias"]))
    return states[-1] if name == "gpt" else states.max(0)


@pytest.mark.parametrize("name", MODELS)
def test_a_vector_is_that_of_the_text_read_alone(folder: Path, name: str) -> None:
    saved = SavedRun(str(folder / name))
    params, wanted = saved.params(), np.stack([alone(saved, text) for text in TEXTS])
    found = text_vectors(saved.program, params, TEXTS)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, wanted, atol=1e-5)
    mean = text_vectors(saved.program, params, TEXTS, pooling="mean")
    np.testing.assert_allclose(mean, [states_of(saved, text).mean(0) for text in TEXTS], atol=1e-5)
    many = text_vectors(saved.program, params, TEXTS * ROWS)
    np.testing.assert_allclose(many, np.tile(wanted, (ROWS, 1)), atol=1e-5)


def test_the_nearest_lines_come_first_and_a_text_is_nearest_to_itself(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    saved = SavedRun(str(folder / "bilstm"))
    others = ["or not to be", "to be", "xyzzy"]
    vectors = [alone(saved, text) for text in ("to be", *others)]
    one, *rest = [vector / np.linalg.norm(vector) for vector in vectors]
    order = sorted(range(3), key=lambda i: -(rest[i] @ one))
    words = ["embed", str(folder / "bilstm"), "to be"]
    assert main([*words, "--among", str(folder / "among.txt")]) == 0
    heading, *lines = capsys.readouterr().out.splitlines()
    assert heading == "to be" and [line.split(maxsplit=1)[1] for line in lines] == [others[i] for i in order]
    assert lines[0].split() == ["1.000", "to", "be"]
    np.testing.assert_allclose([float(line.split()[0]) for line in lines], [rest[i] @ one for i in order], atol=6e-4)
    assert main([*words, "xyzzy"]) == 0
    rows = [line.split() for line in capsys.readouterr().out.splitlines()[1:]]
    assert [row[0] for row in rows] == ["1", "2"] and rows[0][1] == rows[1][2] == "1.000"
    assert float(rows[0][2]) == float(rows[1][1]) == pytest.approx(rest[2] @ one, abs=6e-4)


def test_vectors_are_written_to_a_file(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "vectors.npy"
    assert main(["embed", str(folder / "gpt"), "--file", str(folder / "among.txt"), "--out", str(out)]) == 0
    assert capsys.readouterr().out == f"3 vectors of 6 numbers written to {out}\n"
    saved = SavedRun(str(folder / "gpt"))
    wanted = text_vectors(saved.program, saved.params(), ["or not to be", "to be", "xyzzy"])
    np.testing.assert_array_equal(np.load(out, allow_pickle=False), wanted)


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        ([], 2, "there is no text to read"),
        (["a"], 2, "one text has nothing to be compared with"),
        (["a", "b", "--count", "0"], 2, "--count 0: it must be at least 1"),
        (["a", "--among", "x", "--out", "y"], 2, "choose one of them"),
        (["a", "--among", "missing.txt"], 3, "--among missing.txt: No such file"),
        (["a", "--out", "missing/x.npy"], 3, "--out missing/x.npy: No such file"),
        (["a", "a" * 15], 2, "the text has 17 tokens with what stands around it, and the model positions for 16"),
        (["a", ""], 3, "there is no token in ''"),
    ],
)
def test_what_cannot_be_done_is_one_line(
    folder: Path, capsys: pytest.CaptureFixture[str], words: list[str], code: int, message: str
) -> None:
    assert main(["embed", str(folder / "gpt"), *words]) == code
    said = capsys.readouterr().err.strip()
    assert message in said and "\n" not in said
