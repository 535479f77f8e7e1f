"""The papers under experiments/papers: what they name is there, and every configuration of a run resolves."""

from pathlib import Path

import pytest

from lmlab.papers.claims import paper_names, read_paper
from lmlab.papers.configurations import Configurations
from lmlab.papers.measuring import function_of
from lmlab.papers.results import read_results

FOLDER = Path(__file__).parents[2] / "experiments" / "papers"
NAMES = paper_names(FOLDER)


@pytest.mark.parametrize("name", NAMES)
def test_every_run_resolves_and_every_function_is_there(name, monkeypatch):
    monkeypatch.chdir(FOLDER.parents[1])
    paper = read_paper(FOLDER, name)
    configurations = Configurations(paper)
    for run in paper.runs.values():
        trial = configurations.trial(run.name, run.seeds[0], 1.0, 0)
        looks = trial.resolved.spec.kwargs["eval_at"]
        assert list(looks) == sorted(set(looks)) and len(looks) == len(run.early), "early looks fall on one step"
        assert trial.id == configurations.run_hash(run.name, run.seeds[0])
    for claim in paper.claims:
        if name_of_function := claim.judge or claim.check:
            function_of(paper, name_of_function)
        read_results(paper, claim)
    assert f"lmlab reproduce {name}" in (paper.folder / "README.md").read_text()


@pytest.mark.parametrize("name", NAMES)
def test_every_gin_file_belongs_to_a_run_or_is_included(name):
    paper = read_paper(FOLDER, name)
    used = {run.file.name for run in paper.runs.values()}
    texts = "".join(file.read_text() for file in paper.folder.glob("*.gin"))
    unused = [
        file.name
        for file in paper.folder.glob("*.gin")
        if file.name not in used and f"{name}/{file.name}'" not in texts
    ]
    assert unused == []
