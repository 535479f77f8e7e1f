"""The sweeps of experiments/ablations: what they name is there, and every trial of them fits."""

from pathlib import Path

import pytest

from lmlab.cli.main import main

ROOT = Path(__file__).parent.parent.parent
SHARED = ("gpt", "moby_dick")
FILES = sorted(path.stem for path in (ROOT / "experiments" / "ablations").glob("*.gin") if path.stem not in SHARED)


@pytest.mark.parametrize("name", FILES)
def test_every_trial_fits_and_the_table_is_there(name, monkeypatch, capsys):
    monkeypatch.chdir(ROOT)
    assert main(["sweep", f"experiments/ablations/{name}.gin", "--dry-run"]) == 0, capsys.readouterr().out
    assert f"`{name}.gin`" in Path("experiments/ablations/README.md").read_text()


def test_there_are_six():
    assert len(FILES) >= 6
