"""Every combination of model, loss and examples: trained where it fits, refused with the reason where it does not."""

import re

import pytest

from lmlab.cli.main import main
from lmlab.config import resolve
from lmlab.errors import ConfigError
from lmlab.registry import scan_installed_plugins
from lmlab.testing.matrix import bindings, cells, train_cell
from lmlab.training.program import Program

scan_installed_plugins()
CELLS = list(cells())
QUICK = ("bilstm", "elman", "rnn_seq2seq")
"""Models that compile fast: they are taken first."""


def trained():
    """Cells that fit; those that show no kind of examples for the first time are left for later.

    Every model, and every loss, is trained by its own tests.
    """
    seen = set()
    for cell in sorted(CELLS, key=lambda cell: cell.model not in QUICK):
        if cell.reason is None:
            fresh = {cell.example} - seen
            seen |= fresh
            yield pytest.param(cell, id=str(cell), marks=[] if fresh else [pytest.mark.long])


@pytest.mark.parametrize("cell", list(trained()))
def test_what_fits_is_trained_from_three_names(cell):
    train_cell(cell)


def test_what_does_not_fit_is_refused_with_the_reason(monkeypatch):
    """One cell for every reason, before any data is read."""
    from lmlab.training import program

    refused = {cell.reason: cell for cell in CELLS if cell.reason is not None}
    assert len(refused) > 20
    chosen = {reason: bindings(cell) for reason, cell in refused.items()}  # makes the runs of teachers, from data
    monkeypatch.setattr(program, "open_data", lambda *args, **kwargs: pytest.fail("data was read"))
    for reason, given in chosen.items():
        text = [f"{key} = {value}" for key, value in given.items()]
        with pytest.raises(ConfigError) as error:
            Program(resolve([], ["\n".join(text)]))
        said = re.findall(r"'\w+'|\b[A-Z]\w+(?:LM|Encoder|Decoder|Batch)\b", reason)
        assert said and all(word in str(error.value) for word in said), (reason, error.value)


def test_the_command_says_what_fits_and_why_not(capsys):
    assert main(["matrix"]) == 0
    found = capsys.readouterr().out
    assert re.search(r"^gpt +CausalLM, PrefixLM +autoregressive", found, re.MULTILINE)
    assert re.search(r"^\d+ of \d+ combinations fit", found, re.MULTILINE)
    assert main(["matrix", "gpt", "seq2seq"]) == 0
    assert "'seq2seq' needs an EncoderDecoder; 'gpt' is a CausalLM" in capsys.readouterr().out
    assert main(["matrix", "gtp"]) == 2
    assert "no model named 'gtp'. Did you mean 'gpt'?" in capsys.readouterr().err
