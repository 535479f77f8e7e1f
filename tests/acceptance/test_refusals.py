"""Every mistake of a configuration is refused: exit code 2, one screen, what is wrong, where, and the way out.

Through the real command line (in this process). What each message says in detail is tested in tests/config.
"""

from pathlib import Path

import pytest

from lmlab.cli.main import main

GOOD = """\
experiment.model = @gpt
experiment.loss = @autoregressive
experiment.dataset = @random_tokens
experiment.optimizer = @adamw
experiment.steps = 2
experiment.global_batch_size = 8
experiment.seq_len = 7
experiment.hooks = []
experiment.writers = []
experiment.evaluators = []
experiment.checkpoints = @checkpoints
gpt.layers = 2
gpt.width = 8
gpt.heads = 2
random_tokens.vocab = 11
adamw.learning_rate = 1e-3
random_tokens.tokens = 600
"""

PLUGIN = '''
from dataclasses import dataclass
from typing import ClassVar
from flax import nnx
from lmlab import contracts
from lmlab.registry import datasets, losses, models


@models.register("both_sides")
class BothSides(nnx.Module):
    """A masked language model and nothing else."""

    def __init__(self, vocab: int, *, width: int = 3, rngs: nnx.Rngs) -> None:
        self.table = nnx.Param(nnx.initializers.normal()(rngs.params(), (vocab, width)), role="embedding")

    def encode(self, tokens, *, segment_ids=None, keys=None):
        """States."""
        return self.table[...][tokens]

    def project(self, hidden):
        """Logits."""
        return hidden @ self.table[...].T


class Picture:
    """No loss reads these."""


@datasets.register("pictures")
@dataclass(frozen=True)
class Pictures:
    """Examples of a kind that nothing converts."""

    example: ClassVar[type] = Picture

    def split(self, name):
        """Pictures."""
        return (Picture(),) * 100

    def fingerprint(self):
        """None."""
        return {}
'''


@pytest.fixture
def refused(tmp_path, monkeypatch, capsys, own_catalogue):
    """`refused(text, *words)` runs `lmlab check x.gin` and gives its message; the exit code must be 2."""
    monkeypatch.chdir(tmp_path)

    def run(text: str | None, *words: str, command: str = "check") -> str:
        if text is not None:
            Path("x.gin").write_text(text, encoding="utf-8")
        assert main([command, "x.gin", *words]) == 2
        message = capsys.readouterr().err
        assert message.startswith("lmlab: ") and "Traceback" not in message
        assert len(message.splitlines()) <= 24 and len(message) < 4000, "more than a screen"
        return message.removeprefix("lmlab: ")

    return run


def test_unknown_component(refused):
    message = refused(GOOD.replace("@gpt", "@gtp"))
    assert message.startswith("x.gin:1: no model named 'gtp'. Did you mean 'gpt'?")


def test_unknown_parameter(refused):
    message = refused(GOOD + "gpt.layres = 4\n")
    assert "x.gin:18: the model 'gpt' has no parameter 'layres'. Did you mean 'layers'?" in message
    assert "parameters of gpt: " in message


def test_value_of_the_wrong_type(refused):
    assert refused(GOOD.replace("gpt.layers = 2", "gpt.layers = 'two'")).startswith(
        "x.gin:12: gpt.layers wants an int >= 1, not 'two' (str)"
    )


def test_missing_required_value(refused):
    message = refused(GOOD.replace("experiment.steps = 2\n", ""))
    assert message.startswith("experiment.steps has no value: the settings 'experiment' (")
    assert message.endswith("--set 'experiment.steps = ...'\n")
    text = GOOD.replace("random_tokens", "text_files").replace("text_files.vocab = 11\n", "")
    message = refused(text.replace("text_files.tokens = 600\n", "experiment.tokenizer = @bytes\n"))
    assert message.endswith(
        "Bind it to a str | sequence of str: 'text_files.train = ...' in a file, or --set 'text_files.train = ...'\n"
    )
    assert "known optimizer names: adafactor, adamw" in refused(GOOD.replace("experiment.optimizer = @adamw\n", ""))


def test_missing_file(refused):
    message = refused(None)
    assert message.startswith("no configuration file 'x.gin'.") and "looked in: " in message
    assert "Did you mean 'x.gin'?" in refused(GOOD, "xx.gin")


def test_unreadable_file(refused):
    Path("x.gin").write_bytes(b"\xfe\xff")
    assert refused(None).startswith("x.gin:1: not UTF-8")
    assert "cannot read folder.gin: Is a directory" in refused(_folder() or GOOD, "folder.gin")


def _folder() -> None:
    Path("folder.gin").mkdir()


def test_syntax_error(refused):
    for value in ("01", "'open", "(1,", "1x", "gpt", "3 * 4"):
        assert refused(f"{GOOD}experiment.seed = {value}\n").startswith(
            ("x.gin:18: cannot read", "x.gin:19: cannot read")
        )


def test_binding_that_nothing_consumed(refused):
    message = refused(GOOD + "lion.learning_rate = 1e-3\nbig/gpt.layers = 3\nDEPTH = 3\n")
    assert "x.gin:18: 'lion.learning_rate' changes nothing: lion is not used: experiment.optimizer is @adamw" in message
    assert "x.gin:19: 'big/gpt.layers' changes nothing: no gpt is used in the scope 'big', only @gpt" in message
    assert "x.gin:20: nothing uses the macro 'DEPTH'" in message


def test_same_key_twice_in_one_file(refused):
    message = refused(GOOD + "gpt:\n  layers = 3\n")
    assert "x.gin:19: 'gpt.layers' is bound twice in one file, first at x.gin:12 (2), then here (3)" in message


def test_binding_shadowed_by_an_argument(refused):
    message = refused(GOOD + "gpt.vocab = 3\ncosine.steps = 3\n")
    assert "x.gin:18: 'gpt.vocab' is shadowed: the program itself gives 'vocab' to the model" in message
    assert "x.gin:19: 'cosine.steps' is shadowed" in message


def test_two_plugins_with_one_name(refused):
    for name in ("a.py", "b.py"):
        Path(name).write_text(PLUGIN)
    message = refused(GOOD, "--plugin", "a.py", "--plugin", "b.py")
    assert "'both_sides' is registered twice: as a model at a.py:" in message and "as a model at b.py:" in message


def test_settings_of_another_sort(refused):
    message = refused(GOOD.replace("= @checkpoints", "= @finite_guard"))
    assert "experiment.checkpoints wants @checkpoints, not @finite_guard (settings)" in message


def test_a_loss_that_the_model_cannot_serve(refused):
    Path("mine.py").write_text(PLUGIN)
    text = "\n".join(line for line in GOOD.splitlines() if not line.startswith("gpt."))
    message = refused(text, "--plugin", "mine.py", "--set", "experiment.model = @both_sides")
    assert "autoregressive" in message and "CausalLM" in message and "both_sides" in message and "gpt" in message


def test_a_dataset_that_the_loss_cannot_read(refused):
    Path("mine.py").write_text(PLUGIN)
    text = "\n".join(line for line in GOOD.splitlines() if not line.startswith("random_tokens."))
    message = refused(text, "--plugin", "mine.py", "--set", "experiment.dataset = @pictures")
    assert message.startswith("the loss 'autoregressive' cannot read the dataset 'pictures': it yields Picture, ")
    assert "the loss reads a TokenBatch" in message
    assert all(name in message.split("datasets that fit:")[1] for name in ("random_tokens", "stdlib", "text_files"))
    assert "pictures" not in message.split("datasets that fit:")[1]


def test_a_number_out_of_its_range(refused):
    message = refused(GOOD.replace("experiment.steps = 2", "experiment.steps = 0"))
    assert message == "x.gin:5: experiment.steps wants an int >= 1, not 0 (int).\n"
    message = refused(GOOD + "gpt.dropout = 1.0\n")
    assert message == "x.gin:18: gpt.dropout wants a float >= 0 and < 1, not 1.0 (float).\n"


def test_a_batch_that_does_not_divide_over_the_devices(refused):
    import jax

    if jax.device_count() == 1:
        pytest.skip("needs several devices")
    message = refused(GOOD.replace("global_batch_size = 8", "global_batch_size = 7"))
    assert "experiment.global_batch_size = 7 does not divide over 8 devices" in message


def test_a_checkpoint_of_another_configuration(refused, capsys):
    Path("x.gin").write_text(GOOD)
    assert main(["train", "x.gin", "--run", "run"]) == 0
    capsys.readouterr()
    message = refused(None, "--run", "run", "--set", "gpt.layers = 3", command="train")
    assert "run" in message and "model.layers" in message and "--fresh" in message


def test_the_good_configuration_is_good(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    Path("x.gin").write_text(GOOD)
    assert main(["check", "x.gin"]) == 0, capsys.readouterr().err
