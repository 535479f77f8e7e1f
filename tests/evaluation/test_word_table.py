"""Neighbours and analogies, against cosines written out; and through the command line on a run of two steps."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lmlab.cli.main import main
from lmlab.config import resolve
from lmlab.data.tokenizers.plain import Bytes
from lmlab.data.tokenizers.words import Words
from lmlab.errors import ConfigError, DataError
from lmlab.evaluation.word_table import WordTable, names_of, table_of
from lmlab.models.ngram import NGram
from lmlab.models.rnn_seq2seq import RNNSeq2Seq
from lmlab.nn.functional import ModelDef
from lmlab.training.loop import train
from lmlab.training.run import Run

WORDS = ["king", "queen", "man", "woman", "throne", "crown", "apple"]
TINY = """
experiment.model = @word2vec
experiment.loss = @negative_sampling
experiment.dataset = @text_files
experiment.tokenizer = @words
words.lower_case = True
experiment.optimizer = @adamw
experiment.steps = 2
experiment.global_batch_size = 4
experiment.seq_len = 16
experiment.writers = []
experiment.evaluators = []
word2vec.width = 5
adamw.learning_rate = 0.01
mesh.data = 1
text_files.split_by = 'position'
text_files.valid_share = 0.2
text_files.test_share = 0.2
"""


def cosine(a: np.ndarray, b: np.ndarray) -> float:
    return float(a @ b / (np.sqrt((a @ a) * (b @ b)) or 1))


def ranked(wanted: np.ndarray, vectors: np.ndarray, out: set[int]) -> list[int]:
    return sorted((i for i in range(len(vectors)) if i not in out), key=lambda i: -cosine(wanted, vectors[i]))


def test_the_nearest_are_those_of_greatest_cosine() -> None:
    tokenizer = Words().fit([" ".join(WORDS)])
    vectors = np.random.default_rng(0).normal(size=(tokenizer.vocab_size, 4)) * np.arange(1, 10)[:, None]
    vectors[tokenizer.encode("apple")[0]] = 0  # never trained
    table = WordTable(vectors, tokenizer, tokenizer.special_ids.values())
    assert [table.names[i] for i in tokenizer.encode(" ".join(WORDS))] == WORDS
    king = int(tokenizer.encode("king")[0])
    found = table.nearest(table.vector("king"), 3, ["king"])
    wanted = ranked(vectors[king], vectors, {0, 1, king})[:3]
    assert [name for name, _ in found] == [table.names[i] for i in wanted]
    assert [near for _, near in found] == pytest.approx([cosine(vectors[king], vectors[i]) for i in wanted], rel=1e-5)
    man, queen = (vectors[tokenizer.encode(word)[0]] for word in ("man", "queen"))
    target = sum(sign * v / np.linalg.norm(v) for sign, v in ((-1, man), (1, vectors[king]), (1, queen)))
    given = {0, 1, *map(int, tokenizer.encode("man king queen"))}
    found = table.nearest(table.vector("king") - table.vector("man") + table.vector("queen"), 99, WORDS[:3])
    assert found[0][0] == table.names[ranked(target, vectors, given)[0]]
    assert {name for name, _ in found} == {"woman", "throne", "crown", "apple"}
    with pytest.raises(DataError, match=r"'kingg' is not in the vocabulary of the run. Did you mean 'king'\?"):
        table.ids("kingg")


def test_words_of_several_ids_have_the_mean_of_their_vectors_and_ids_are_numbers() -> None:
    vectors = np.random.default_rng(1).normal(size=(256, 3))
    table = WordTable(vectors, Bytes().fit([]))
    ids = table.ids("ab")
    assert [names_of(Bytes())[i] for i in ids] == ["' '", "'a'", "'b'"]  # as it stands in the middle of a text
    assert cosine(table.vector("ab"), vectors[[32, 97, 98]].mean(0)) == pytest.approx(1)
    numbers = WordTable(vectors[:11])
    assert numbers.nearest(numbers.vector("3"), 1, ["3"])[0][0] == str(ranked(vectors[3], vectors[:11], {3})[0])
    for word in ("11", "x"):
        with pytest.raises(DataError, match="the numbers from 0 to 10"):
            numbers.ids(word)


def test_the_table_of_a_model() -> None:
    two = ModelDef.of(lambda rngs: RNNSeq2Seq(11, jnp.float32, rngs, width=4))
    assert table_of(two, 11, "rnn_seq2seq") == "embedding/embedding"
    assert table_of(two, 11, "rnn_seq2seq", "source_embedding/embedding") == "source_embedding/embedding"
    with pytest.raises(ConfigError, match="its tables: embedding/embedding, source_embedding/embedding"):
        table_of(two, 11, "rnn_seq2seq", "source_embeding")
    counted = ModelDef.of(lambda rngs: NGram(11, 11, order=1))  # whose tables have as many rows, of counts
    with pytest.raises(ConfigError, match="the model 'ngram' has no vector for each token id"):
        table_of(counted, 11, "ngram")


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("words")
    (folder / "corpus.txt").write_text(f"{' '.join(WORDS)}\n" * 60)
    train(resolve([], [TINY, f"text_files.train = '{folder}/corpus.txt'"]), folder / "run")
    return folder / "run"


def test_the_commands_answer_from_the_checkpoint(run: Path, capfd: pytest.CaptureFixture[str]) -> None:
    def said(*words: Any) -> tuple[int, str, str]:
        capfd.readouterr()
        return main([str(word) for word in words]), *capfd.readouterr()

    found = Run(run)
    vectors = np.asarray(jax.device_get(found.params)["embedding/embedding"])
    words = list(found.program.tokenizer.encode(" ".join(WORDS)))
    king, man, woman = (words[WORDS.index(word)] for word in ("king", "man", "woman"))
    near = ranked(vectors[king], vectors, {0, 1, king})[:2]
    code, out, _ = said("neighbours", run, "King", "--count", 2)
    assert code == 0
    assert [line.split()[0] for line in out.splitlines()] == ["King", *(WORDS[words.index(i)] for i in near)]
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    answer = ranked(unit[king] - unit[man] + unit[woman], vectors, {0, 1, king, man, woman})[0]
    code, out, _ = said("analogy", run, "man", "king", "woman", "--count", 1)
    assert code == 0
    assert out.splitlines()[1].split()[0] == WORDS[words.index(answer)]
    assert said("neighbours", run, "quean")[::2] == (
        3, "lmlab: 'quean' is not in the vocabulary of the run. Did you mean 'queen'?\n"
    )  # fmt: skip
    assert said("neighbours", run, "king", "--table", "contexts")[0] == 2
    assert said("neighbours", run, "king", "--count", 0)[0] == 2
