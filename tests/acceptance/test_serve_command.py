"""`lmlab serve` and `lmlab chat` as commands: a server that answers and ends, a conversation, and what is refused."""

from __future__ import annotations

import http.client
import io
import json
import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from lmlab.cli.main import main
from lmlab.config import resolve
from lmlab.training.loop import train
from tests.acceptance.small import SMALL

GPT = """
experiment.model = @gpt
experiment.loss = @autoregressive
gpt.width = 12
gpt.heads = 3
gpt.layers = 1
gpt.init_std = 0.5
experiment.dataset = @text_files
text_files.train = '{folder}/corpus.txt'
text_files.split_by = 'position'
text_files.valid_share = 0.2
text_files.test_share = 0.2
experiment.seq_len = 32
"""
IDS = """
experiment.model = @gpt
experiment.loss = @autoregressive
gpt.width = 12
gpt.heads = 3
gpt.layers = 1
experiment.dataset = @random_tokens
random_tokens.vocab = 11
experiment.tokenizer = None
"""
SEQ2SEQ = """
experiment.model = @rnn_seq2seq
experiment.loss = @seq2seq
experiment.dataset = @tsv_pairs
tsv_pairs.train = '{folder}/pairs.tsv'
rnn_seq2seq.width = 12
rnn_seq2seq.layers = 1
"""
TOKEN = "correct-horse"
TEMPLATE = "{% for m in messages %}{{ m.content }}{% endfor %}"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    for module in ("starlette", "uvicorn", "jinja2"):
        pytest.importorskip(module)
    folder = tmp_path_factory.mktemp("serve")
    (folder / "corpus.txt").write_text("to be or not to be, that is the question\n" * 40)
    (folder / "pairs.tsv").write_text("".join(f"{n} dogs\tchiens : {n}\n" for n in range(30)))
    (folder / "chat.jinja").write_text(TEMPLATE)
    for name, part in (("gpt", GPT), ("ids", IDS), ("seq2seq", SEQ2SEQ)):
        train(resolve([], [SMALL, part.format(folder=folder)]), folder / name)
    return folder


@pytest.fixture
def server(folder: Path) -> Iterator[subprocess.Popen[str]]:
    command = [sys.executable, "-m", "lmlab", "serve", str(folder / "gpt"), "--port", "0", "--slots", "2"]
    environment = os.environ | {"LMLAB_TOKEN": TOKEN}
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment) as found:
        yield found
        found.kill()


def test_a_server_answers_what_generate_writes_and_ends_cleanly(
    folder: Path, server: subprocess.Popen[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert server.stdout is not None
    lines = [server.stdout.readline()]
    while lines[-1] and not lines[-1].startswith("serving"):
        lines.append(server.stdout.readline())
    assert lines[0].startswith("compiled for 1 row of 32 tokens")
    found = re.fullmatch(r"serving gpt \([\d,]+ parameters\) on http://127\.0\.0\.1:(\d+), 2 texts of up to 32 tokens "
                         r"side by side, with a token\n", lines[-1])  # fmt: skip
    assert found is not None, lines
    connection = http.client.HTTPConnection("127.0.0.1", int(found[1]), timeout=60)
    asked = json.dumps({"prompt": "to be", "max_tokens": 9, "temperature": 0})
    headers = {"Content-Type": "application/json"}
    connection.request("POST", "/v1/completions", asked, headers)
    refused = connection.getresponse()
    assert refused.status == 401 and "token" in refused.read().decode()
    connection.request("POST", "/v1/completions", asked, headers | {"Authorization": f"Bearer {TOKEN}"})
    answer = json.loads(connection.getresponse().read())
    server.send_signal(signal.SIGTERM)
    rest, said = server.communicate(timeout=60)
    assert (server.returncode, rest, said) == (0, "", "")
    assert main(["generate", str(folder / "gpt"), "--prompt", "to be", "--length", "9", "--temperature", "0"]) == 0
    assert capsys.readouterr().out == f"to be{answer['choices'][0]['text']}\n"


def test_a_conversation_goes_on_until_the_input_ends(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO("to be\n/help\nto be\n/reset\nto be\nto be or not to\n/exit\nnever\n"))
    words = ["chat", str(folder / "gpt"), "--template", str(folder / "chat.jinja"), "--tokens", "9"]
    assert main([*words, "--temperature", "0"]) == 0
    out = capsys.readouterr().out
    assert out.count("> to be") == 4 and "never" not in out
    assert "(no command /help: /reset, /exit)" in out and "(a new conversation)" in out
    assert "(the oldest 2 messages are left out: there is no more room)" in out
    turns = out.split("> to be\n")
    assert main(["generate", str(folder / "gpt"), "--prompt", "to be", "--length", "9", "--temperature", "0"]) == 0
    first = capsys.readouterr().out.removeprefix("to be").rstrip("\n")
    assert turns[1].startswith(f"{first}\n") and turns[3].startswith(f"{first}\n")


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (["serve", "gpt", "--host", "0.0.0.0"], 2, "--host 0.0.0.0 lets other machines in, which need a token"),
        (["serve", "gpt", "--host", "example.org"], 2, "lets other machines in, which need a token"),
        (["serve", "gpt", "--token", "short"], 2, "a token has at least 8 printable ASCII characters"),
        (["serve", "gpt", "--token", "with a space"], 2, "a token has at least 8"),
        (["serve", "gpt", "--port", "70000"], 2, "--port 70000: it must be between 0 and 65535"),
        (["serve", "gpt", "--slots", "0"], 2, "--slots 0: it must be between 1 and 4096"),
        (["serve", "gpt", "--port", "0", "--length", "33"], 2, "--length 33: the model has positions for 32 tokens"),
        (["serve", "gpt", "--port", "0", "--template", "missing"], 3, "--template missing cannot be read"),
        (["serve", "missing", "--port", "0"], 6, "missing is no run folder"),
        (["serve", "ids", "--port", "0"], 2, "lmlab serve needs a tokenizer, and this run's data are ids"),
        (["serve", "seq2seq", "--port", "0"], 2, "which the model 'rnn_seq2seq' cannot: it is no CausalLM"),
        (["chat", "seq2seq"], 2, "lmlab chat continues texts, which the model 'rnn_seq2seq' cannot"),
        (["chat", "gpt"], 2, "has no chat template: name one by --template FILE"),
        (["chat", "gpt", "--tokens", "32", "--template", "chat.jinja"], 2, "reads and writes 32 tokens at most"),
        (["chat", "gpt", "--tokens", "0"], 2, "--tokens 0: it must be at least 1"),
        (["chat", "gpt", "--temperature", "nan"], 2, "--temperature nan: it must be at least 0"),
        (["chat", "gpt", "--top-p", "0"], 2, "--top-p 0.0: it must be in (0, 1]"),
    ],
)
def test_what_cannot_be_served_is_one_line(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch,
    words: list[str], code: int, message: str,
) -> None:  # fmt: skip
    monkeypatch.chdir(folder)
    monkeypatch.delenv("LMLAB_TOKEN", raising=False)
    assert main(words) == code
    said = capsys.readouterr().err.strip()
    assert message in said and "\n" not in said


def test_an_address_that_is_taken_is_one_line(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        assert main(["serve", str(folder / "gpt"), "--port", str(port)]) == 2
    assert f"--port {port} cannot be had: Address already in use." in capsys.readouterr().err
