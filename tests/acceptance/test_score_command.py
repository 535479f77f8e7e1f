"""`lmlab score`: -log p of texts against reading them token by token, n-best lists, and what is refused."""

from __future__ import annotations

import io
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lmlab.cli.main import main
from lmlab.config import resolve
from lmlab.evaluation.text_batches import ROWS
from lmlab.evaluation.text_scores import score_texts
from lmlab.generation.saved import SavedRun
from lmlab.training.loop import train
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
SEQ2SEQ = """
experiment.model = @rnn_seq2seq
experiment.loss = @seq2seq
experiment.dataset = @tsv_pairs
tsv_pairs.train = '{folder}/pairs.tsv'
rnn_seq2seq.width = 12
rnn_seq2seq.layers = 1
rnn_seq2seq.init_scale = 0.5
"""
TEXTS = ["to be", "tö", "or not to be, "]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("score")
    (folder / "corpus.txt").write_text("to be or not to be, that is the question\n" * 40)
    (folder / "pairs.tsv").write_text("".join(f"{n} dogs\tchiens : {n}\n" for n in range(30)))
    for name, part in (("gpt", GPT), ("seq2seq", SEQ2SEQ)):
        train(resolve([], [SMALL, part.format(folder=folder)]), folder / name)
    return folder


def by_hand(saved: SavedRun, texts: list[str], source: str | None = None) -> list[list[float]]:
    """-log p of every token of each text, by reading what stands before it anew and nothing behind it, float64."""
    tokenizer = saved.program.tokenizer
    assert tokenizer is not None
    params, end = saved.params(), [tokenizer.end_of_text]
    told = None if source is None else jnp.asarray(np.concatenate([tokenizer.encode(source), end]))[None]

    @jax.jit
    def last(before: jax.Array, t: int) -> jax.Array:
        model = saved.program.model.bind(params)
        read = model.hidden(before) if told is None else model.decode(before, model.encode_source(told))
        return model.project(read[0][0, t - 1])

    found = []
    for text in texts:
        ids = np.concatenate([end, tokenizer.encode(text), end]).astype(np.int32)
        nats = []
        for t in range(1, len(ids)):
            logits = np.float64(last(np.where(np.arange(16) < t, np.resize(ids, 16), 0)[None], t))
            nats.append(float(np.log(np.exp(logits).sum()) - logits[ids[t]]))
        found.append(nats)
    return found


def test_texts_have_the_probability_of_their_tokens_one_after_the_other(folder: Path) -> None:
    saved = SavedRun(str(folder / "gpt"))
    params, wanted = saved.params(), by_hand(saved, TEXTS)
    for whole in (True, False):
        found = score_texts(saved.program, params, TEXTS, whole=whole)
        for text, nats, score in zip(TEXTS, wanted, found, strict=True):
            each = nats[: None if whole else -1]
            np.testing.assert_allclose(score.nats, sum(each), rtol=1e-5)
            assert score.tokens == len(each) == len(text.encode()) + whole
    many = score_texts(saved.program, params, TEXTS * ROWS)
    np.testing.assert_allclose([score.nats for score in many[-3:]], [score.nats for score in many[:3]], rtol=1e-6)


def test_targets_have_the_probability_that_their_source_gives_them(folder: Path) -> None:
    saved = SavedRun(str(folder / "seq2seq"))
    found = score_texts(saved.program, saved.params(), ["chiens", "c"], source="7 dogs")
    for nats, score in zip(by_hand(saved, ["chiens", "c"], "7 dogs"), found, strict=True):
        np.testing.assert_allclose(score.nats, sum(nats), rtol=1e-5)


def test_the_best_of_a_file_come_first(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    saved = SavedRun(str(folder / "gpt"))
    wanted = sorted((sum(nats), text) for nats, text in zip(by_hand(saved, TEXTS), TEXTS, strict=True))
    monkeypatch.setattr("sys.stdin", io.StringIO("\n".join(TEXTS) + "\n\n"))
    assert main(["score", str(folder / "gpt"), "--file", "-", "--best", "2"]) == 0
    lines = capsys.readouterr().out.splitlines()[1:]
    assert [line.split(maxsplit=3)[3].strip() for line in lines] == [text.strip() for _, text in wanted[:2]]
    np.testing.assert_allclose(float(lines[0].split()[0]), wanted[0][0], atol=2e-3)


@pytest.mark.parametrize(
    ("run", "words", "code", "message"),
    [
        ("gpt", [], 2, "there is no text to score"),
        ("gpt", ["a", "--best", "0"], 2, "--best 0: it must be at least 1"),
        ("gpt", ["--file", "missing.txt"], 3, "--file missing.txt: No such file"),
        ("gpt", ["a", "--source", "b"], 2, "the model 'gpt' reads no source"),
        ("gpt", ["a" * 17], 2, "the text has 18 tokens, and the model positions for 16"),
        ("seq2seq", ["a"], 2, "the model 'rnn_seq2seq' writes targets: give the --source"),
        ("gpt", [""], 3, "there is no token in ''"),
    ],
)
def test_what_cannot_be_scored_is_one_line(
    folder: Path, capsys: pytest.CaptureFixture[str], run: str, words: list[str], code: int, message: str
) -> None:
    assert main(["score", str(folder / run), *words]) == code
    said = capsys.readouterr().err.strip()
    assert message in said and "\n" not in said
