"""The texts between two texts: the path against its definition, and what is written there against whole readings."""

import jax
import numpy as np
import pytest

from lmlab.cli.main import main
from lmlab.config import resolve
from lmlab.errors import ConfigError
from lmlab.generation.interpolation import Interpolation, path
from lmlab.generation.samplers import Greedy
from lmlab.training.loop import train
from lmlab.training.program import Program
from tests.drawn import drawn

IDS = """
experiment.model = @text_vae
experiment.loss = @elbo
experiment.dataset = @vae_synthetic
experiment.optimizer = @sgd
experiment.steps = 2
experiment.global_batch_size = 16
experiment.seq_len = 6
experiment.writers = []
experiment.evaluators = []
mesh.data = 1
sgd.learning_rate = 0.1
vae_synthetic.words = 11
vae_synthetic.length = 5
vae_synthetic.embedding = 3
vae_synthetic.width = 7
vae_synthetic.train_examples = 67
vae_synthetic.valid_examples = 17
vae_synthetic.test_examples = 17
"""
SIZES = """
text_vae.latent = 3
text_vae.width = 7
text_vae.embedding = 5
text_vae.init_scale = 2.0
text_vae.embedding_scale = 2.0
"""
ONE, OTHER = "11 3 1 4 1 5 12", "11 9 2 6 12"


@pytest.fixture(scope="module")
def ids(tmp_path_factory):
    file = tmp_path_factory.mktemp("vae") / "vae.gin"
    file.write_text(IDS + SIZES)
    return Program(resolve([str(file)]))


def test_a_line_has_equal_distances_and_an_arc_equal_angles():
    start, end = np.array([3.0, 0.0, 0.0]), np.array([0.0, 2.0, 0.0])
    np.testing.assert_allclose(
        path(start, end, 4, spherical=False), [[3, 0, 0], [2, 2 / 3, 0], [1, 4 / 3, 0], [0, 2, 0]]
    )
    arc = path(start, end, 3, spherical=True)
    np.testing.assert_allclose(arc, [start, (start + end) / np.sqrt(2), end], atol=1e-12)
    units = path(np.array([1.0, 0]), np.array([np.cos(2), np.sin(2)]), 5, spherical=True)
    np.testing.assert_allclose(units, [[np.cos(a), np.sin(a)] for a in (0, 0.5, 1, 1.5, 2)], atol=1e-12)


@pytest.mark.parametrize("end", [[2.0, 4.0], [-1.0, -2.0], [0.0, 0.0]])
def test_vectors_on_one_line_have_no_arc_between_them(end):
    start = np.array([1.0, 2.0])
    arc, line = (path(start, np.array(end), 5, spherical=spherical) for spherical in (True, False))
    np.testing.assert_array_equal(arc, line)


def test_each_text_is_the_most_probable_one_of_its_vector(ids):
    params, model = drawn(ids.model, 1), ids.model
    written = Interpolation(ids, Greedy()).write(params, (ONE, OTHER), steps=3, length=6)
    assert [place for place, _ in written] == [0, 0.5, 1] and len({text for _, text in written}) > 1

    @jax.jit
    def means(params, one, other):
        bound = model.bind(params)
        return [bound.posterior(row).mean[0] for row in (one, other)]

    @jax.jit
    def logits(params, tokens, latents):
        bound = model.bind(params)
        return bound.project(bound.hidden_given(tokens, latents)[0])

    first, last = means(params, *(np.array([row.split()], np.int32) for row in (ONE, OTHER)))
    rows = [[11, *(int(word) for word in text.split())] for _, text in written]
    padded = np.array([row + [0] * (7 - len(row)) for row in rows], np.int32)
    best = np.asarray(logits(params, padded, np.array([first, (first + last) / 2, last]))).argmax(-1)
    for row, chosen in zip(rows, best.tolist(), strict=True):
        ended = len(row) < 7  # with the id that ends both texts, which is not shown
        assert chosen[: len(row) - (not ended)] == row[1:] + [12] * ended


def test_rows_of_ids_are_whole_ones(ids):
    texts = Interpolation(ids, Greedy())
    assert [row.tolist() for row in texts.rows((ONE, OTHER))] == [[11, 3, 1, 4, 1, 5, 12], [11, 9, 2, 6, 12]]
    for other, complaint in (("11 13", "from 0 to 12"), ("3 4 12", "begin with the same"), ("", "begin with the same")):
        with pytest.raises(ConfigError, match=complaint):
            texts.rows((ONE, other))


def test_texts_are_read_between_two_ends_of_text(tmp_path):
    overrides = [
        f"text_files.train = '{tmp_path}/*.txt'", "experiment.dataset = @text_files", "experiment.tokenizer = @bytes",
        "text_files.valid_share = 0.2", "text_files.test_share = 0.2",
    ]  # fmt: skip
    for n in range(20):
        (tmp_path / f"{n}.txt").write_text(f"Ein Satz, Nummer {n}, und noch einer.\n" * 3)
    file = tmp_path / "vae.gin"
    file.write_text("\n".join(line for line in (IDS + SIZES).splitlines() if "vae_synthetic" not in line))
    program = Program(resolve([str(file)], overrides))
    end = program.tokenizer.end_of_text
    rows = Interpolation(program, Greedy()).rows(("ab", ""))
    assert [row.tolist() for row in rows] == [[end, 97, 98, end], [end, end]]


def test_a_model_without_a_latent_vector_is_refused(tmp_path):
    file = tmp_path / "lstm.gin"
    file.write_text(IDS.replace("@elbo", "@autoregressive").replace("@text_vae", "@lstm") + "lstm.width = 7\n")
    with pytest.raises(ConfigError, match="the model 'lstm' is none"):
        Interpolation(Program(resolve([str(file)])), Greedy())


@pytest.mark.parametrize(("option", "value", "complaint"), [("steps", 1, "at least 2"), ("length", 0, "at least 1"),
                                                            ("seed", -1, "between 0 and")])  # fmt: skip
def test_impossible_numbers_are_refused(capsys, option, value, complaint):
    assert main(["interpolate", "nowhere", ONE, OTHER, f"--{option}", str(value)]) == 2
    assert complaint in capsys.readouterr().err


@pytest.mark.long
def test_the_command_writes_a_line_for_each_text(tmp_path, capfd):
    (tmp_path / "vae.gin").write_text(IDS + SIZES)
    train(resolve([str(tmp_path / "vae.gin")]), tmp_path / "run")
    capfd.readouterr()
    assert main(["interpolate", str(tmp_path / "run"), ONE, OTHER, "--steps", "3", "--spherical"]) == 0
    lines = capfd.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == ["0.00", "0.50", "1.00"]
    assert all(0 <= int(word) < 13 for line in lines for word in line.split()[1:])
