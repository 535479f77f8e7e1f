"""The files of experiments/recall: each task resolves with each mixer."""

from pathlib import Path

import pytest

from lmlab.config import resolve

FOLDER = Path(__file__).parent.parent.parent / "experiments" / "recall"


@pytest.mark.parametrize("mixer", sorted((FOLDER / "mixers").glob("*.gin")), ids=lambda file: file.stem)
@pytest.mark.parametrize("task", sorted(FOLDER.glob("*.gin")), ids=lambda file: file.stem)
def test_the_task_goes_with_the_mixer(task: Path, mixer: Path) -> None:
    parts = resolve([str(task), str(mixer)]).spec.kwargs
    assert parts["dataset"].name == task.stem
    assert parts["model"].name == {"attention": "gpt"}.get(mixer.stem, mixer.stem)
    ids = parts["dataset"].kwargs
    assert parts["seq_len"] == ids["length"] + ids.get("data", 0)
