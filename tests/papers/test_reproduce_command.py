"""`lmlab reproduce` and `lmlab papers` on a tiny paper: what is run, what is kept, what is refused."""

import json
import math
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from small_paper import CHECKS, CLAIMS, write_paper

from lmlab.cli.main import main
from lmlab.config import resolve
from lmlab.training.run import Run


@pytest.fixture(scope="module")
def measured(tmp_path_factory):
    """A paper with everything measured: the folders of papers and of runs, the exit code."""
    folder = tmp_path_factory.mktemp("measured")
    papers, runs = write_paper(folder), folder / "runs"
    return papers, runs, main(["reproduce", "tiny", "--papers", str(papers), "--runs", str(runs), "--budget", "full"])


@pytest.fixture
def reproduce(measured, capsys):
    """Calls the command on the measured paper; gives the exit code and what was printed."""
    papers, runs, _ = measured

    def call(*options):
        code = main(["reproduce", *options, "--papers", str(papers), "--runs", str(runs)])
        said = capsys.readouterr()
        return code, said.out, said.err

    return call


def kept(papers: Path, claim: str) -> dict:
    return json.loads((papers / "tiny" / "results" / f"{claim}.json").read_text())


def test_everything_is_measured_kept_and_met(measured, reproduce):
    papers, runs, code = measured
    assert code == 0
    results = kept(papers, "loss")["results"]
    assert [result["seed"] for result in results] == [0, 1]
    for result in results:
        record = result["record"]["runs"]["tiny"]
        run = Run(runs / "tiny" / "trials" / record["id"])
        evaluations = {r["step"]: r["valid/nats_per_token"] for r in run.metrics() if r["phase"] == "eval"}
        assert evaluations == {10: result["values"]["0.5"], 20: result["values"]["1"]}
        assert record["configuration"] == run.resolved.hash and record["step"] == record["steps"] == 20
        assert result["record"]["environment"]["versions"]["jax"] and result["loss"] > 0
    text = json.dumps(kept(papers, "loss"))
    assert str(papers.parent) not in text and os.uname().nodename not in text
    code, out, err = reproduce("tiny")
    assert code == 0 and "runs, about" not in err  # nothing is run twice
    values = [result["values"]["1"] for result in results]
    assert f"{sum(values) / 2:.5g} ± " in out and out.count(" met") == 3


def test_verifying_trains_nothing_and_needs_no_runs(measured, capsys):
    papers, _, _ = measured
    assert main(["reproduce", "--all", "--verify", "--papers", str(papers), "--runs", str(papers / "none")]) == 0
    assert capsys.readouterr().out.count(" met") == 3
    assert main(["reproduce", "--list", "--papers", str(papers)]) == 0
    assert "3 met" in capsys.readouterr().out and not (papers / "none").exists()


def test_a_band_that_is_moved_fails_what_was_met(measured, reproduce):
    papers, _, _ = measured
    (papers / "tiny" / "claims.toml").write_text(CLAIMS.replace("band = [0.1, 3.0]", "band = [0.1, 0.2]"))
    code, out, _ = reproduce("tiny", "--verify")
    assert code == 1 and "failed" in out and out.count(" met") == 2
    assert reproduce("tiny", "--verify", "--claim", "seven")[0] == 0
    (papers / "tiny" / "claims.toml").write_text(CLAIMS)


def test_a_changed_number_is_refused_and_not_replaced(measured, reproduce):
    path = measured[0] / "tiny" / "results" / "seven.json"
    good = path.read_text()
    path.write_text(good.replace("7.0", "8.0"))
    for options in (("--verify",), ()):
        code, out, _ = reproduce("tiny", *options)
        assert code == 1 and "damaged" in out and "its digest is another" in out and out.count(" met") == 2
    assert "8.0" in path.read_text()
    path.write_text(good)


def test_numbers_of_another_configuration_or_judge_do_not_count(measured, reproduce):
    papers, _, _ = measured
    file, checks = papers / "tiny" / "tiny.gin", papers / "tiny" / "checks.py"
    text = file.read_text()
    file.write_text(text.replace("learning_rate = 0.1", "learning_rate = 0.2"))
    code, out, _ = reproduce("tiny", "--verify")
    assert code == 0 and out.count("not run") == 2 and "another configuration or judge" in out
    code, out, _ = reproduce("tiny", "--budget", "1s")
    assert code == 0 and "about 8 min: --budget full" in out  # it does not fit: that is no failure
    file.write_text(text.replace("log_every = 5", "log_every = 4"))
    assert reproduce("tiny", "--verify")[1].count(" met") == 3  # that changes nothing that is learned
    file.write_text(text)
    checks.write_text(CHECKS.replace("losses[0] - losses[-1]", "losses[0] - losses[-2]"))
    for name in [name for name in sys.modules if name.startswith("lmlab_plugin_checks")]:
        del sys.modules[name]  # as in a new process
    out = reproduce("tiny", "--verify")[1]
    assert out.count(" met") == 2 and "gain: what is kept" in out
    checks.write_text(CHECKS)


def test_an_early_look_is_gone_on_with_and_ends_as_one_run(measured, tmp_path, capsys):
    papers, runs = write_paper(tmp_path), tmp_path / "runs"
    options = ["--papers", str(papers), "--runs", str(runs)]
    assert main(["reproduce", "tiny", *options, "--claim", "loss", "--budget", "2m"]) == 0
    assert "early: on course (50% of the steps)" in capsys.readouterr().out
    assert set(kept(papers, "loss")["results"][0]["values"]) == {"0.5"}
    assert main(["reproduce", "tiny", *options, "--budget", "full"]) == 0
    for claim in ("loss", "gain"):
        ours, theirs = (kept(folder, claim)["results"] for folder in (papers, measured[0]))
        assert [one["values"] for one in ours] == [one["values"] for one in theirs]  # to the bit
    assert len(list((runs / "tiny" / "trials").iterdir())) == 2


@pytest.mark.long
def test_what_is_killed_is_gone_on_with(measured, tmp_path):
    papers, runs = write_paper(tmp_path, steps=1500), tmp_path / "runs"
    command = [sys.executable, "-m", "lmlab", "reproduce", "tiny", "--papers", str(papers), "--runs", str(runs),
               "--claim", "loss", "--seeds", "1", "--budget", "full"]  # fmt: skip
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    while not any(path.stat().st_size for path in runs.glob("tiny/trials/*/metrics.jsonl")) and process.poll() is None:
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    said = process.communicate()
    assert process.returncode == 75, said
    assert "The same command goes on" in said[1] and "Traceback" not in said[1]
    (trial,) = (runs / "tiny" / "trials").iterdir()
    before = Run(trial).step
    assert 0 < before < 1500
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert Run(trial).step == 1500 and set(kept(papers, "loss")["results"][0]["values"]) == {"0.5", "1"}


@pytest.mark.parametrize(
    ("claims", "checks", "said"),
    [
        (CLAIMS.replace('"counts"', '"count"'), CHECKS, "has no function 'count'. Did you mean 'counts'?"),
        (CLAIMS.replace('"counts"', '"other:counts"'), CHECKS, "other.py, which is not there"),
        (CLAIMS.replace('metric = "seven"', 'metric = "sevn"'), CHECKS, "no 'sevn'. Did you mean 'seven'?"),
        (CLAIMS, CHECKS.replace("7.0", "1 / 0"), "'counts' failed: ZeroDivisionError"),
        (CLAIMS, CHECKS.replace('{"seven": 7.0}', "[7.0]"), "not numbers by name"),
        (CLAIMS, CHECKS.replace("7.0", "float('nan')"), "not finite: nan"),
        (CLAIMS, "import nothing_like_it" + CHECKS, "nothing_like_it"),
    ],
)
def test_a_check_that_gives_no_number_is_one_line_and_no_verdict(tmp_path, capsys, claims, checks, said):
    papers = write_paper(tmp_path, claims, checks)
    command = ["reproduce", "tiny", "--claim", "seven", "--papers", str(papers), "--runs", str(tmp_path / "runs")]
    assert main(command) in (1, 2)
    shown = capsys.readouterr()
    assert said in shown.out + shown.err and "Traceback" not in shown.err
    assert not (papers / "tiny" / "results").exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ((), "name one paper"),
        (("tiny", "--all"), "name one paper"),
        (("--all", "--claim", "loss"), "--claim is of one paper"),
        (("tiny", "--budget", "soon"), "--budget soon"),
        (("tiny", "--seeds", "0"), "--seeds 0"),
        (("tiny", "--verify", "--again"), "--verify measures nothing"),
        (("tiny", "--claim", "lss"), "no claim 'lss'. Did you mean 'loss'?"),
        (("tniy",), "no paper 'tniy'"),
    ],
)
def test_what_cannot_be_asked_is_one_message(reproduce, options, message):
    code, _, err = reproduce(*options)
    assert code == 2 and message in err and "Traceback" not in err


def test_the_skeleton_of_a_paper_is_not_run(tmp_path, capsys):
    papers = str(tmp_path / "papers")
    assert main(["papers", "new", "mine", "--papers", papers]) == 0
    assert main(["reproduce", "mine", "--verify", "--papers", papers]) == 0
    assert "not run" in capsys.readouterr().out
    assert resolve(f"{papers}/mine/small.gin").spec.kwargs["steps"] > 0
    for name in ("mine", "../mine", "Mine", ""):
        assert main(["papers", "new", name, "--papers", papers]) == 2
    assert main(["reproduce", "mine", "--papers", str(tmp_path / "nowhere")]) == 2
    assert "is no folder of papers" in capsys.readouterr().err


@pytest.mark.long
def test_a_loss_that_is_not_finite_is_no_number(tmp_path, capsys):
    papers = write_paper(tmp_path)
    file = papers / "tiny" / "tiny.gin"
    file.write_text(
        file.read_text().replace("rate = 0.1", "rate = 3e38") + "sgd.momentum = 0.9\nfinite_guard.patience = 2"
    )
    command = ["reproduce", "tiny", "--claim", "loss", "--seeds", "1", "--papers", str(papers), "--budget", "full"]
    assert main([*command, "--runs", str(tmp_path / "runs")]) == 1
    out = capsys.readouterr().out
    assert "not run" in out and "loss: the run 'tiny' of seed 0 has not come to step" in out and "nan" in out
    assert math.isfinite(Run(next((tmp_path / "runs" / "tiny" / "trials").iterdir())).step)


def test_a_check_finds_the_datasets_of_installed_plug_ins(tmp_path):
    pytest.importorskip("lmlab_third_party", reason="lmlab is not installed")
    checks = (
        "from lmlab.registry import datasets\n\n\ndef counts():\n    datasets.entry('brown')\n    return {'seven': 7}\n"
    )
    papers = write_paper(tmp_path, checks=checks)
    command = [sys.executable, "-m", "lmlab", "reproduce", "tiny", "--claim", "seven", "--papers", str(papers)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout
