"""The skeleton of a new paper: a folder that can be checked and reproduced, with everything in it to be replaced."""

from __future__ import annotations

from pathlib import Path

from lmlab.errors import ConfigError
from lmlab.papers.reading import NAME
from lmlab.training.files import replace_text, writing

FILES = {
    "README.md": """# {name}

What is claimed, and where (paper, table, page, repository file):

What differs here from the paper, and why:

    lmlab reproduce {name} --budget 10m
""",
    "claims.toml": """title = "{name}"
source = "the paper, its repository"

[runs.small]
file = "small.gin"
set = []
seeds = [0, 1, 2]
minutes = {{ two_cores = 10.0, h100 = 1.0 }}   # of one seed, to the end

[[claims]]
id = "loss"
statement = "What the paper says, in one sentence."
source = "table, page"
runs = ["small"]
metric = "valid/bits_per_byte"
unit = "bits/byte"
published = 2.0
band = [1.9, 2.1]
why = "Why these numbers count as met."
early = [{{ at = 0.1, band = [2.0, 4.0] }}]

# A number of several runs, or one that no record has: judge = "ratio", a function in checks.py.
# A number that needs no training: check = "counts", metric = "parameters", minutes = {{ two_cores = 0.1, h100 = 0.1 }}.
""",
    "small.gin": """# The configuration of the paper.
#   lmlab check experiments/papers/{name}/small.gin
include 'experiments/quickstart.gin'
""",
    "checks.py": '''"""Judges and checks of {name}: functions that claims.toml names."""

from __future__ import annotations

from collections.abc import Mapping

from lmlab.papers.measuring import RunAt


def counts() -> Mapping[str, float]:
    """Numbers that need no training."""
    return {{"parameters": 1.0}}


def gained(runs: Mapping[str, RunAt]) -> float:
    """A number of the runs of one seed."""
    losses = runs["small"].curve("train/loss")[1]
    return losses[0] - losses[-1]
''',
}


def new_paper(folder: Path, name: str) -> list[Path]:
    """Writes the files of a new paper; gives their paths.

    Raises:
      ConfigError: the name cannot be that of a paper, or there is something of this name.
    """
    if not NAME.fullmatch(name):
        raise ConfigError(f"'{name}' is no name of a paper: small letters, digits and underscores, a letter first.")
    target = folder / name
    if target.exists():
        raise ConfigError(f"{target} is there already. Choose another name, or go on in it.")
    with writing(target):
        target.mkdir(parents=True)
    written = []
    for file, text in FILES.items():
        replace_text(target / file, text.format(name=name))
        written.append(target / file)
    return written
