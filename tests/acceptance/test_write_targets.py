"""An encoder-decoder from the command line: trained on pairs, measured by whole targets, asked for one."""

from __future__ import annotations

from pathlib import Path

from lmlab.cli.main import main
from lmlab.cli.translate import ROWS
from lmlab.config import resolve
from lmlab.training.loop import train

ROOT = Path(__file__).parents[2]
TINY = """
experiment.steps = 250
experiment.global_batch_size = 8
experiment.seq_len = 5
experiment.source_len = 4
experiment.dataset = @tsv_pairs
experiment.tokenizer = @words
experiment.hooks = [@samples]
experiment.writers = []
rnn_seq2seq.width = 24
rnn_seq2seq.layers = 1
rnn_seq2seq.dropout = 0.0
rnn_seq2seq.init_scale = 0.3
adamw.learning_rate = 0.03
mesh.data = 1
samples.prompts = ['one two']
samples.length = 5
samples.sampler = @greedy
"""


def test_targets_are_learned_measured_and_written(tmp_path, capfd) -> None:
    names = ["one", "two", "three", "four"]
    pairs = "".join(f"{a} {b}\t{b.upper()} {a.upper()}\n" for a in names for b in names)
    (tmp_path / "pairs.tsv").write_text(pairs, encoding="utf-8")
    (tmp_path / "tiny.gin").write_text(TINY)
    files = [str(ROOT / "experiments" / "models" / "seq2seq_lstm.gin"), str(tmp_path / "tiny.gin")]
    given = "; ".join(f"tsv_pairs.{split} = '{tmp_path / 'pairs.tsv'}'" for split in ("train", "valid"))
    run = train(resolve(files, [given]), tmp_path / "run")
    last = [record for record in run.metrics() if record["phase"] == "eval"][-1]
    assert last["valid/exact_match"] == 1.0, last
    assert last["valid/length/written"] == last["valid/length/target"] == 2.0
    capfd.readouterr()
    assert main(["generate", str(run.folder), "--prompt", "three one", "--temperature", "0", "--length", "5"]) == 0
    assert capfd.readouterr().out.split() == ["three", "one", "ONE", "THREE"]
    begun = ["generate", str(run.folder), "--prompt", "three one", "--target-prefix", "ONE", "--length", "5"]
    for how in (["--temperature", "0"], ["--beams", "3"]):
        assert main([*begun, *how]) == 0
        assert capfd.readouterr().out.split()[-4:] == ["three", "one", "ONE", "THREE"]
    searched = ["generate", str(run.folder), "--prompt", "three one", "--beams", "3", "--length", "5"]
    assert main([*searched, "--count", "2"]) == 0
    first, said, written, second, *_ = capfd.readouterr().out.splitlines()
    assert (said, written.strip()) == ("three one", "ONE THREE")
    shares = [float(line.split()[2]) for line in (first, second)]  # log p of each
    assert 0 >= shares[0] > shares[1]
    assert (
        main([*searched[:-4], "--length", "2", "--beams", "4", "--groups", "4", "--diversity", "9", "--count", "4"])
        == 0
    )
    firsts = [line.split()[0] for line in capfd.readouterr().out.splitlines() if line.isupper()]
    assert len(set(firsts)) == len(firsts) > 1, firsts
    wrong = {
        "--beams 4 --groups 3": "4 beams in 3 groups",
        "--groups 2": "add --beams K",
        "--beams 4 --diversity 1": "add --groups G",
        "--diversity 1": "add --beams K --groups G",
    }
    for given, message in wrong.items():
        assert main([*searched[:4], *given.split()]) == 2
        assert message in capfd.readouterr().err
    for given, message in ((["--temperature", "0"], "leave --temperature out"), (["--count", "4"], "--beams 3 finds")):
        assert main([*searched, *given]) == 2
        assert message in capfd.readouterr().err
    (tmp_path / "sources.txt").write_text("three one\n\nfour two\n" + "two three\n" * ROWS)
    wanted = ["ONE THREE", "TWO FOUR", *["THREE TWO"] * ROWS]
    for command, how in (("translate", ["--beams", "3"]), ("summarize", [])):
        assert main([command, str(run.folder), "one four", "--file", str(tmp_path / "sources.txt"), *how]) == 0
        assert capfd.readouterr().out.splitlines() == ["FOUR ONE", *wanted]
    for given, code, message in (([], 2, "there is no text to write"), (["one", "--beams", "0"], 2, "--beams 0")):
        assert main(["translate", str(run.folder), *given]) == code
        said = capfd.readouterr().err.strip()
        assert message in said and "\n" not in said
    assert (run.folder / "samples" / "250.txt").read_text().split("---")[-1].split() == ["one", "two", "TWO", "ONE"]
