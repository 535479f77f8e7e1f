"""`lmlab report` as a person uses it: every form, and every mistake as one line."""

import csv
import io
import re
import shutil
import subprocess

import pytest

from lmlab.cli.main import main
from tests.sweeps.sweep_folder import make_sweep, trial_id

NASTY = "'<b>&_%$#{}~^\\\\|`*</script>'"
GRID = [{"sgd.rate": rate, "text.mark": mark} for rate in ("0.1", "0.2") for mark in ("'plain'", NASTY)]
FAILED = {trial_id(GRID[3], 0): "nan", trial_id(GRID[3], 1): "oom", trial_id(GRID[2], 2): "pending"}


@pytest.fixture(scope="module")
def sweep(tmp_path_factory):
    folder = tmp_path_factory.mktemp("sweeps") / "nasty"
    luck = (0.0, 0.3, -0.2, 0.11, 0.05)

    def value(settings, seed):
        return 2 + luck[seed] + float(settings["sgd.rate"]) * (1 + seed / 50) + 0.01 * (settings["text.mark"] == NASTY)

    make_sweep(folder, GRID, range(5), value, baseline=GRID[0], statuses=FAILED, name="nasty </script> & _names_")
    return folder


def shown(capsys, *words):
    assert main(["report", *map(str, words)]) == 0
    return capsys.readouterr().out


def test_the_terminal_shows_every_variant_best_first_and_what_failed(sweep, capsys):
    lines = shown(capsys, sweep).splitlines()
    assert lines[0] == "nasty </script> & _names_: 20 trials (17 ok, 1 pending, 1 oom, 1 nan)"
    rows = [line.split("  ")[0] for line in lines[2:6]]
    marks = ["'plain'", NASTY, "'plain'", NASTY]
    rates = ["0.1", "0.1", "0.2", "0.2"]
    assert sorted(rows) == sorted(f"rate={rate}, mark={mark}" for rate, mark in zip(rates, marks, strict=True))
    assert "baseline" in lines[2] and "5/5" in lines[2]
    text = "\n".join(lines)
    assert "1 nan, 1 oom" in text and "1 pending" in text and "it ended as oom" in text
    assert "lower is better" in text and "for 2 comparisons (Holm)" in text
    assert "1 variant has the same difference in every seed" in text  # the mark costs 0.01 always


def test_csv_has_a_row_for_each_trial_with_all_its_numbers(sweep, capsys):
    rows = list(csv.DictReader(io.StringIO(shown(capsys, sweep, "--format", "csv"))))
    assert len(rows) == 20 and {row["status"] for row in rows} == {"ok", "nan", "oom", "pending"}
    by_id = {row["id"]: row for row in rows}
    row = by_id[trial_id(GRID[1], 4)]
    assert row["text.mark"] == NASTY and row["seed"] == "4" and float(row["seconds"]) == 1.5
    assert float(row["valid/nats_per_token"]) == pytest.approx(2 + 0.05 + 0.1 * 1.08 + 0.01)
    pending = by_id[trial_id(GRID[2], 2)]
    assert pending["valid/nats_per_token"] == pending["tokens"] == pending["seconds"] == ""


def test_markdown_is_a_table_that_a_text_cannot_break(sweep, capsys):
    text = shown(capsys, sweep, "--format", "markdown")
    table = text.split("\n\n")[1].splitlines()
    assert len(table) == 2 + 4
    assert {len(re.findall(r"(?<!\\)\|", line)) for line in table} == {11}
    assert not re.search(r"(?<!\\)<", text)


def test_latex_is_a_booktabs_table_with_every_text_escaped(sweep, capsys):
    text = shown(capsys, sweep, "--format", "latex")
    assert [r for r in (r"\toprule", r"\midrule", r"\bottomrule") if text.count(r) == 1] == [
        r"\toprule",
        r"\midrule",
        r"\bottomrule",
    ]
    body = text.split("\\midrule\n")[1].split("\\bottomrule")[0].splitlines()
    assert len(body) == 4
    for line in body:
        assert line.endswith(r" \\") and len(re.findall(r"(?<!\\)&", line)) == 5
        bare = re.sub(r"\\[a-z0-9]+\{\}|\$(\\pm|[-+])\$|\\[{}$&#_%]", "", line.removesuffix(r"\\"))
        assert not set(bare) & set("{}$#_%^~<>\\"), bare
    assert r"\textless{}b\textgreater{}\&\_\%\$\#\{\}\textasciitilde{}\textasciicircum{}\textbackslash{}" in text


@pytest.mark.skipif(shutil.which("pdflatex") is None, reason="no pdflatex here to set the table with")
def test_latex_sets_the_table(sweep, capsys, tmp_path):
    table = shown(capsys, sweep, "--format", "latex")
    (tmp_path / "x.tex").write_text(
        "\\documentclass{article}\\usepackage{booktabs}\\begin{document}" + table + "\\end{document}"
    )
    command = ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "x.tex"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    if "booktabs.sty' not found" in done.stdout:
        pytest.skip("this TeX has no booktabs")
    assert done.returncode == 0 and "Missing character" not in done.stdout, done.stdout


def test_another_metric_and_another_baseline_may_be_chosen(sweep, capsys):
    text = shown(capsys, sweep, "--metric", "train/loss", "--baseline", "sgd.rate = 2e-1; text.mark = 'plain'")
    [line] = [line for line in text.splitlines() if " baseline " in line and line.startswith("rate")]
    assert line.startswith("rate=0.2, mark='plain'") and "train/loss" in text


@pytest.mark.parametrize("form", ["markdown", "latex", "csv"])
def test_a_report_may_be_written_to_a_file(sweep, capsys, tmp_path, form):
    assert shown(capsys, sweep, "--format", form, "--out", tmp_path / "x") == f"written to {tmp_path / 'x'}\n"
    assert (tmp_path / "x").read_text() == shown(capsys, sweep, "--format", form)


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["--metric", "valid/nothing"], 2, "no finished trial ends with 'valid/nothing'"),
        (["--metric", "valid/nats", "--baseline", "sgd.rate"], 2, "write it as 'AXIS = VALUE'"),
        (["--baseline", "sgd.rate = 0.1"], 2, "2 variants have sgd.rate = 0.1"),
        (["--baseline", "sgd.rat = 0.1"], 2, "'sgd.rat' is no axis"),
        (["--out", "x.txt"], 2, "choose its --format"),
        (["--format", "csv", "--out", "/nowhere/x.csv"], 6, "/nowhere/x.csv cannot be written"),
    ],
)
def test_a_mistake_is_one_clear_line(sweep, capsys, words, code, said):
    assert main(["report", str(sweep), *words]) == code
    told = capsys.readouterr()
    assert said in told.err and "Traceback" not in told.err and not told.out


def test_a_folder_that_is_no_sweep_is_named(tmp_path, capsys):
    assert main(["report", str(tmp_path)]) == 6
    assert "it has no sweep.json" in capsys.readouterr().err
