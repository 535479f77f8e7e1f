"""`lmlab generate` and `lmlab eval` on a run of a few steps, through the command line."""

import json
import math
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from lmlab.cli.main import main
from lmlab.config import resolve
from lmlab.data.tokenizers.plain import Bytes
from lmlab.generation.saved import SavedRun
from lmlab.training.loop import train
from lmlab.training.run import Run

ROOT = Path(__file__).parents[2]
TEXT = "Was man nicht weiß, das eben brauchte man,\nund was man weiß, kann man nicht brauchen. 日本語\n\n"
TINY = """
experiment.model = @gpt
experiment.loss = @autoregressive
experiment.dataset = @text_files
experiment.tokenizer = @bytes
experiment.optimizer = @adamw
experiment.steps = 6
experiment.global_batch_size = 8
experiment.seq_len = 32
experiment.writers = []
gpt.width = 12
gpt.heads = 3
gpt.layers = 2
adamw.learning_rate = 0.01
mesh.data = 1
text_files.split_by = 'position'
text_files.valid_share = 0.2
text_files.test_share = 0.2
samples.length = 11
samples.every = 2
samples.prompts = ['', 'Was ']
samples.count = 2
checkpoints.every = 3
"""


def trained(folder, *overrides):
    (folder / "corpus.txt").write_text(TEXT * 40, encoding="utf-8")
    (folder / "tiny.gin").write_text(TINY)
    files = f"text_files.train = '{folder / 'corpus.txt'}'"
    train(resolve([str(folder / "tiny.gin")], [files, *overrides]), folder / "run")
    return folder / "run"


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return trained(tmp_path_factory.mktemp("tiny"))


@pytest.fixture
def lmlab(capfd):
    """Runs a command in this process; gives its exit code, standard output and standard error."""

    def call(*words):
        capfd.readouterr()
        return main([str(word) for word in words]), *capfd.readouterr()

    return call


# --- generate -------------------------------------------------------------------------------------------------


def test_text_is_printed_behind_its_prompt(run, lmlab):
    code, out, _ = lmlab("generate", run, "--prompt", "Was man ", "--length", 20)
    assert code == 0
    assert out.startswith("Was man ") and out.endswith("\n")
    assert len(out.encode(errors="replace")) > len("Was man \n")


def test_the_same_seed_writes_the_same_and_another_one_something_else(run, lmlab):
    outs = [lmlab("generate", run, "--length", 40, "--seed", seed)[1] for seed in (1, 1, 2)]
    assert outs[0] == outs[1] != outs[2]


def test_the_first_of_several_samples_is_the_one_that_stands_alone(run, lmlab):
    _, alone, _ = lmlab("generate", run, "--prompt", "Was", "--length", 30)
    _, several, _ = lmlab("generate", run, "--prompt", "Was", "--length", 30, "--count", 3)
    assert several.startswith(f"--- sample 1 ---\n{alone}--- sample 2 ---\n")
    assert several.count("--- sample ") == 3


def test_temperature_zero_and_top_k_one_are_the_most_probable_text(run, lmlab):
    outs = [lmlab("generate", run, "--length", 20, *how)[1] for how in (("--temperature", 0), ("--top-k", 1))]
    assert outs[0] == outs[1]


def test_contrastive_search_writes_one_text_and_draws_nothing(run, lmlab):
    how = ("generate", run, "--prompt", "Was man ", "--length", 20)
    code, found, _ = lmlab(*how, "--contrastive", 0.6)
    assert code == 0 and found.startswith("Was man ") and found == lmlab(*how, "--contrastive", 0.6, "--seed", 3)[1]
    assert lmlab(*how, "--contrastive", 0.6, "--top-k", 1)[1] == lmlab(*how, "--temperature", 0)[1]
    wrong = {
        "--top-p 0.9": "leave --top-p out", "--temperature 2": "leave --temperature out", "--count 2": "--count out",
        "--beams 3": "leave --beams out", "--top-k 0": "at least 1",
    }  # fmt: skip
    for given, message in wrong.items():
        code, _, said = lmlab(*how, "--contrastive", 0.6, *given.split())
        assert code == 2 and message in said and said.count("\n") == 1
    code, _, said = lmlab(*how, "--contrastive", 1.5)
    assert code == 2 and "must be in [0, 1]" in said


def test_text_may_be_longer_than_the_learned_positions(run, lmlab):
    code, out, _ = lmlab("generate", run, "--prompt", "x" * 50, "--length", 90)
    assert code == 0 and len(out) > 60


def test_an_earlier_checkpoint_writes_its_own_text(run, lmlab):
    outs = [lmlab("generate", run, "--length", 40, "--step", step)[1] for step in (3, 6)]
    assert outs[0] != outs[1]
    code, _, err = lmlab("generate", run, "--step", 4)
    assert code == 4 and "It has: 3, 6" in err


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (("--length", 0), "--length 0"),
        (("--count", 0), "--count 0"),
        (("--seed", -1), "--seed -1"),
        (("--temperature", -1), "temperature is -1"),
        (("--top-p", 2), "top_p is 2"),
        (("--top-k", 0), "top_k is 0"),
    ],
)
def test_impossible_numbers_are_refused(run, lmlab, words, complaint):
    code, _, err = lmlab("generate", run, *words)
    assert code == 2 and complaint in err and "Traceback" not in err


def test_a_prompt_that_the_tokenizer_cannot_encode_is_refused(run, lmlab):
    code, _, err = lmlab("generate", run, "--prompt", "a\0b")
    assert code == 3 and "NUL" in err


def test_what_is_no_run_folder_is_refused(lmlab, tmp_path):
    for command in ("generate", "eval"):
        code, _, err = lmlab(command, tmp_path)
        assert code == 6 and "is no run folder" in err


def test_a_model_that_reads_no_source_writes_no_targets(run, lmlab):
    code, _, err = lmlab("translate", run, "Was")
    assert code == 2 and "the model 'gpt' is none. lmlab generate continues texts." in err


def test_a_model_that_reads_no_source_has_no_target_to_begin(run, lmlab):
    code, _, err = lmlab("generate", run, "--target-prefix", "Was")
    assert code == 2 and "the model 'gpt' reads no source" in err and "write it into the prompt" in err


def test_a_run_that_keeps_an_average_is_used_with_the_average(tmp_path):
    folder = trained(tmp_path, "experiment.ema = 0.999999")
    state, used = Run(folder).state, SavedRun(str(folder)).params()
    assert any(not np.array_equal(used[path], state.params[path]) for path in used)
    for path, value in used.items():
        np.testing.assert_array_equal(value, state.opt_state["ema"][path])


def test_a_run_on_ids_writes_ids(tmp_path, lmlab):
    text = TINY.replace("@text_files", "@random_tokens").replace("experiment.tokenizer = @bytes\n", "")
    kept = [line for line in text.splitlines() if not line.startswith(("text_files", "samples"))]
    (tmp_path / "ids.gin").write_text("\n".join([*kept, "random_tokens.vocab = 13", "samples.length = 5"]))
    train(resolve([str(tmp_path / "ids.gin")]), tmp_path / "run")
    _, out, _ = lmlab("generate", tmp_path / "run", "--prompt", "3 1 4", "--length", 7)
    ids = [int(word) for word in out.split()]
    assert ids[:3] == [3, 1, 4] and len(ids) == 10 and max(ids) < 13
    code, _, err = lmlab("generate", tmp_path / "run", "--prompt", "3 13")
    assert code == 2 and "from 0 to 12" in err


def test_text_comes_as_it_is_written_not_all_at_the_end(run):
    command = [sys.executable, "-m", "lmlab", "generate", str(run), "--prompt", "Was", "--length", "100000"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "XLA_FLAGS": ""}
    child = subprocess.Popen(command, stdout=subprocess.PIPE, env=environment)
    try:
        assert len(child.stdout.read(40)) == 40
        assert child.poll() is None, "it had already written everything"
    finally:
        child.kill()
        child.wait()
        child.stdout.close()


# --- the hook -------------------------------------------------------------------------------------------------


def test_samples_are_written_while_training(run):
    assert sorted(path.name for path in (run / "samples").iterdir()) == ["2.txt", "4.txt", "6.txt"]
    text = (run / "samples" / "6.txt").read_text(encoding="utf-8")
    titles = [line for line in text.splitlines() if line.startswith("--- sample")]
    assert titles == [
        "--- sample 1 ---",
        "--- sample 2 ---",
        "--- sample 1 of 'Was ' ---",
        "--- sample 2 of 'Was ' ---",
    ]
    assert text.count("\nWas ") == 2


def test_the_last_samples_are_shown_at_the_end(tmp_path, capfd):
    folder = trained(tmp_path, "experiment.steps = 2", "samples.every = 0")
    assert capfd.readouterr().out == (folder / "samples" / "2.txt").read_text(encoding="utf-8") + "\n"


# --- eval -----------------------------------------------------------------------------------------------------


def test_eval_measures_the_whole_split_to_the_token(run, lmlab):
    code, out, _ = lmlab("eval", run, "--split", "test")
    assert code == 0 and "test/bits_per_byte" in out
    saved = json.loads((run / "eval" / "6-test.json").read_text())
    text = (run.parent / "corpus.txt").read_text(encoding="utf-8")
    from lmlab.data.datasets.text_files import TextFiles

    document = TextFiles(str(run.parent / "corpus.txt"), split_by="position", valid_share=0.2, test_share=0.2)
    tested = document.split("test")[0].text
    assert tested in text
    metrics = saved["metrics"]
    assert saved["step"] == 6
    assert metrics["test/tokens"] == len(Bytes().encode(tested)) + 1  # and the end of the text
    bytes_ = len(tested.encode())
    assert metrics["test/bits_per_byte"] == pytest.approx(metrics["test/nats"] / bytes_ / math.log(2))
    assert metrics["test/ppl/word"] == pytest.approx(math.exp(metrics["test/nats"] / len(tested.split())))


def test_eval_agrees_with_what_was_measured_while_training(run, lmlab):
    recorded = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    trained_metrics = next(record for record in recorded if record["phase"] == "eval")
    lmlab("eval", run, "--batches", 20)
    saved = json.loads((run / "eval" / "6-default.json").read_text())["metrics"]
    assert saved == {name: trained_metrics[name] for name in saved}


def test_eval_of_one_batch_is_less_than_the_split(run, lmlab):
    lmlab("eval", run, "--split", "valid", "--batches", 1)
    saved = json.loads((run / "eval" / "6-valid.json").read_text())["metrics"]
    assert saved["valid/tokens"] == 8 * 32


def test_eval_on_one_device_is_eval(run, lmlab):
    found = []
    for how in ((), ("--one-device",)):
        lmlab("eval", run, "--split", "test", *how)
        found.append(json.loads((run / "eval" / "6-test.json").read_text())["metrics"])
    assert found[0] == pytest.approx(found[1])


def test_eval_refuses_a_split_that_is_not_there(run, lmlab):
    code, _, err = lmlab("eval", run, "--split", "exam")
    assert code == 3 and "exam" in err and "Traceback" not in err
    code, _, err = lmlab("eval", run, "--batches", 0)
    assert code == 2 and "batches" in err
