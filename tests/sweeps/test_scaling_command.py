"""`lmlab scaling` as a person uses it: on a ladder whose losses follow a known law, on a table, and with mistakes."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest

from lmlab.cli.main import main
from lmlab.config import resolve
from lmlab.sweeps.scaling_law import Law
from tests.sweeps.sweep_folder import make_sweep

LAW = Law(E=1.2, A=35.0, B=180.0, alpha=0.37, beta=0.44)
WIDTHS, BUDGETS = (8, 12, 16, 20), (2_800, 14_000, 28_000)
BASE = """
experiment.model = @elman
experiment.loss = @autoregressive
experiment.dataset = @random_tokens
experiment.optimizer = @sgd
experiment.global_batch_size = 4
experiment.seq_len = 7
sgd.learning_rate = 0.1
elman.width = {width}
mesh.data = 1
experiment.steps = {steps}
"""
BLOCKS = 100
"""What each unit of width brings, beside an embedding of 50 numbers and a head of 7."""


def parameters(width: int) -> int:
    return BLOCKS * width + 57


@pytest.fixture(scope="module")
def ladder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four sizes, the largest held out, on three numbers of tokens, with two rates, of which one is worse by 3 %."""
    folder = tmp_path_factory.mktemp("sweeps") / "ladder"
    settings = [
        {"elman.width": str(width), "experiment.steps": str(tokens // 28), "sgd.rate": rate}
        for width in WIDTHS for tokens in BUDGETS for rate in ("0.1", "0.2")
    ]  # fmt: skip

    def value(one, seed):
        found = LAW.loss(parameters(int(one["elman.width"])), 28 * int(one["experiment.steps"]))
        return float(found) * (1.03 if one["sgd.rate"] == "0.2" else 1.0)

    statuses = {}
    trials = make_sweep(folder, settings, [3], value, statuses=statuses, name="ladder & <b>")
    saved = json.loads((folder / "sweep.json").read_text())
    saved["over_compute"] = {"keys": ["elman.width", "experiment.steps"], "held_out": 1}
    (folder / "sweep.json").write_text(json.dumps(saved))
    for trial in trials:
        width, steps = int(trial["settings"]["elman.width"]), int(trial["settings"]["experiment.steps"])
        finish(folder / "trials" / trial["id"], width, steps)
    return folder


def finish(run: Path, width: int, steps: int) -> None:
    """Writes what the command reads of a run: its configuration and the shapes in its last checkpoint."""
    gin = run / "made.gin"
    gin.write_text(BASE.format(width=width, steps=steps))
    (run / "config.json").write_text(json.dumps(resolve([str(gin)]).to_json()))
    note = run / "checkpoints" / str(steps) / "note"
    note.mkdir(parents=True)
    arrays = {"params/cell/kernel": [[BLOCKS, width], 0, 0], "params/embedding/embedding": [[50], 0, 0],
              "params/head/kernel": [[7], 0, 0], "opt_state/x": [[999], 0, 0]}  # fmt: skip
    (note / "metadata").write_text(json.dumps({"arrays": arrays}))


def shown(capsys, *words):
    assert main(["scaling", *map(str, words)]) == 0
    return capsys.readouterr().out


def law_in(text: str) -> dict[str, float]:
    names = ("E", "alpha", "beta")
    return {name: float(re.search(rf"^{re.escape(name)} +([\d.e+-]+)", text, re.M)[1]) for name in names}


def test_a_ladder_gives_the_law_of_its_losses_and_foretells_what_was_held_out(ladder, capsys):
    text = shown(capsys, ladder, "--resamples", "5", "--budget", "1e9")
    good, bad = text.split("ladder & <b> (rate=0.2)")
    assert law_in(good) == pytest.approx({"E": 1.2, "alpha": 0.37, "beta": 0.44}, rel=1e-3)
    assert law_in(bad)["E"] == pytest.approx(1.2 * 1.03, rel=1e-3)  # a law for each rate
    held = [line for line in good.splitlines() if "held out" in line and line[0].isdigit()]
    assert len(held) == 3 and all(re.search(r"2,057 +(2,800|14,000|28,000) +3 ", line) for line in held)
    assert all(re.search(r"[+-]0\.0\d%", line) for line in held)
    best = LAW.optimum(1e9)
    row = next(line.split() for line in good.splitlines() if line.startswith("1e+09 "))
    assert float(row[1].replace(",", "")) == pytest.approx(best.parameters, rel=1e-2)
    assert float(row[4]) == pytest.approx(best.loss, rel=1e-3) and row[-1] == "trained"
    assert "9 runs, 3 held out" in good and "as Hoffmann" in good


def test_the_best_setting_of_each_rung_and_other_parameters_counted(ladder, capsys):
    text = shown(capsys, ladder, "--best", "--resamples", "0", "--held-out", "0", "--parameters", "non-embedding")
    assert "(the best setting of each rung)" in text and "12 runs:" not in text and "12 runs\n" in text
    assert float(re.search(r"mean error +([\d.]+)%", text)[1]) < 0.5  # the worse rate, by 3 %, is nowhere in it
    assert re.search(r"^800 ", text, re.M) and "as Kaplan" in text and "held out" not in text


def test_json_and_a_page_say_the_same(ladder, capsys, tmp_path):
    assert shown(capsys, ladder, "--format", "json", "--resamples", "5") == f"written to {ladder}/scaling.json\n"
    first = json.loads((ladder / "scaling.json").read_text())[0]
    assert first["law"]["beta"]["value"] == pytest.approx(0.44, rel=1e-3)
    low, high = first["law"]["beta"]["interval"]
    assert low <= first["law"]["beta"]["value"] + 1e-6 and first["law"]["beta"]["value"] <= high + 1e-6
    assert len(first["runs"]) == 12 and sum(run["held_out"] for run in first["runs"]) == 3
    best = first["frontier"][0]
    assert 6 * best["parameters"] * best["tokens"] == pytest.approx(best["flops"])
    pytest.importorskip("plotly")
    shown(capsys, ladder, "--format", "html", "--out", tmp_path / "law.html", "--resamples", "5")
    page = (tmp_path / "law.html").read_text()
    assert "<b>" not in page.split("<script")[0].replace("<body>", "") and page.count("<div id='figure") == 4
    figures = json.loads(page.split('id="figures">')[1].split("</script>")[0])
    assert all(np.isfinite(trace["y"]).all() for figure in figures for trace in figure["data"])


def test_a_size_that_is_not_trained_yet_is_foretold(ladder, capsys, tmp_path):
    folder = tmp_path / "begun"
    shutil.copytree(ladder, folder)
    for run in (folder / "trials").iterdir():
        if "elman.width = 20" in (run / "made.gin").read_text():
            for name in ("trial.json", "metrics.jsonl"):
                (run / name).unlink()
            shutil.rmtree(run / "checkpoints")
    text = shown(capsys, folder, "--best", "--resamples", "3")
    held = [line.split() for line in text.splitlines() if line.endswith("held out") and line[0].isdigit()]
    assert len(held) == 3
    assert all(words[3] == "–" and float(words[4]) > 1.2 for words in held)
    program_size = int(held[0][0].replace(",", ""))  # an Elman network of width 20 over 256 ids, not the made one
    assert program_size != 2_057


def test_a_table_is_fitted_and_its_largest_sizes_foretold(tmp_path, capsys):
    path = tmp_path / "points.csv"
    rows = [(n, d, float(LAW.loss(n, d))) for n in (1e4, 2e4, 5e4, 9e4) for d in (1e5, 4e5, 9e5)]
    path.write_text("parameters,tokens,loss\n" + "".join(f"{n},{d},{loss!r}\n" for n, d, loss in rows))
    text = shown(capsys, path, "--held-out", "1", "--resamples", "0")
    assert law_in(text) == pytest.approx({"E": 1.2, "alpha": 0.37, "beta": 0.44}, rel=1e-3)
    assert text.count("held out") == 4 and "9 runs, 3 held out" in text


@pytest.mark.parametrize(
    ("words", "code", "why"),
    [
        (["SWEEP", "--metric", "valid/nothing"], 2, "no finished trial ends with 'valid/nothing'. Choose a --metric"),
        (["SWEEP", "--held-out", "4"], 2, "4 sizes held out leave none of 4"),
        (["SWEEP", "--held-out", "2"], 3, "determine no scaling law: there are 2 sizes"),
        (["SWEEP", "--held-out", "-1"], 2, "--held-out -1: it must be at least 0"),
        (["SWEEP", "--budget", "nan"], 2, "--budget nan: it must be a positive number"),
        (["SWEEP", "--out", "x"], 2, "--out is for a file"),
        (["SWEEP", "--format", "json", "--out", "SWEEP"], 2, "this is a folder"),
        (["nowhere.csv"], 3, "nowhere.csv cannot be read"),
        (["nowhere.csv", "--best"], 2, "are for sweeps"),
    ],
)
def test_a_mistake_is_one_line(ladder, capsys, words, code, why):
    assert main(["scaling", *(str(ladder) if word == "SWEEP" else word for word in words)]) == code
    said = capsys.readouterr()
    assert why in said.err and said.err.count("\n") == 1 and said.out == ""


@pytest.mark.long
def test_a_ladder_is_climbed_gone_on_with_and_fitted(tmp_path, capsys):
    """The whole way, on sequences of a hidden Markov source; the last trials are lost, and made again."""
    file, folder = tmp_path / "mine.gin", tmp_path / "sweep"
    text = BASE.format(width=4, steps=1).replace("@random_tokens", "@hmm_source").replace("seq_len = 7", "seq_len = 64")
    file.write_text(
        "\n".join(line for line in text.splitlines() if not line.startswith(("experiment.steps", "elman.width")))
        + "\nexperiment.hooks = []\nexperiment.writers = []\nsweep.over_compute = @ladder\nladder.held_out = 1\n"
        "ladder.sizes = {'elman.width': [3, 6, 12, 24]}\nladder.tokens = [2560, 7680, 25600]\nsweep.fail_after = 1\n"
        "checkpoints.every = 0\n"
    )
    assert main(["sweep", str(file), "--folder", str(folder)]) == 0
    capsys.readouterr()
    text = shown(capsys, folder, "--resamples", "20")
    held = [line.split() for line in text.splitlines() if line.endswith("held out") and line[0].isdigit()]
    assert "9 runs, 3 held out" in text and [words[1] for words in held] == ["2,560", "7,680", "25,600"]
    for words in held:
        measured, said, error = float(words[3]), float(words[4]), float(words[7].rstrip("%"))
        assert error == pytest.approx(100 * (said / measured - 1), abs=0.02)
    for one in json.loads((folder / "sweep.json").read_text())["trials"][-3:]:
        shutil.rmtree(folder / "trials" / one["id"])
    assert main(["sweep", str(file), "--folder", str(folder)]) == 0  # the same command again: what is not there is made
    capsys.readouterr()
    assert shown(capsys, folder, "--resamples", "20") == text
