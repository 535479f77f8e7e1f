"""The ladder of experiments/scaling: what it names is there, every trial of it fits, and its table has every rung."""

import re
from pathlib import Path

from lmlab.cli.main import main
from lmlab.sweeps.trials import plan

ROOT = Path(__file__).parent.parent.parent


def test_every_rung_fits_and_is_in_the_table(monkeypatch, capsys):
    monkeypatch.chdir(ROOT)
    file = "experiments/scaling/moby_dick.gin"
    assert main(["sweep", file, "--dry-run"]) == 0, capsys.readouterr().out
    ladder = plan([file], [], []).ladder
    table = Path("experiments/scaling/README.md").read_text()
    rows = re.findall(r"^\| \**([\d,]+)\**(?:, held out)? \| ([\d,]+) \| \d", table, re.M)
    sizes = sorted({int(n.replace(",", "")) for n, _ in rows})
    assert len(sizes) == len(ladder.sizes["gpt.width"])
    assert [int(tokens.replace(",", "")) for _, tokens in rows] == list(ladder.tokens) * len(sizes)
