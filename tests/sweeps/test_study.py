"""A search proposes by what came of earlier proposals, goes on where it was stopped, and is refused other axes."""

from __future__ import annotations

import json
import math

import pytest
from sweep_folder import make_sweep

from lmlab.cli.main import main
from lmlab.errors import ConfigError
from lmlab.sweeps.folder import SweepFolder
from lmlab.sweeps.search import Optuna
from lmlab.sweeps.space import Sweep
from lmlab.sweeps.study import Study

optuna = pytest.importorskip("optuna")

AXES = {"rate": ("'log_uniform'", "1e-4", "1.0"), "size": ("'int_uniform'", "1", "9"), "kind": ("@a", "@b")}
SEARCH = Optuna(settings=40, at_a_time=8)


def bowl(settings, seed):
    """Best at a rate of 0.01, a size of 4 and @b; the seeds are away from their mean by as much as the other one."""
    distance = (math.log10(float(settings["rate"])) + 2) ** 2 + 0.05 * (int(settings["size"]) - 4) ** 2
    return distance + (settings["kind"] == "@a") + (0.5 if seed else -0.5)


def rounds(folder, number, search=SEARCH, axes=AXES):
    """So many lots, with a study that is opened anew for each of them; all settings."""
    for _ in range(number):
        study = Study(SweepFolder(folder), Sweep(axes=axes), search)
        assert study.propose()
        settings = study.settings()
        trials = make_sweep(folder, settings[-search.at_a_time :], (0, 1), bowl)
        assert study.judge([(trial["settings"], trial["id"]) for trial in trials]) == search.at_a_time
    return study.settings()


def test_it_comes_to_the_bottom_of_a_bowl_and_judges_by_the_mean_over_seeds(tmp_path):
    found = rounds(tmp_path, 5)
    assert len(found) == 40 and not Study(SweepFolder(tmp_path), Sweep(axes=AXES), SEARCH).propose()
    best = min(found, key=lambda one: bowl(one, 0) + bowl(one, 1))
    assert best["kind"] == "@b" and abs(math.log10(float(best["rate"])) + 2) < 0.4 and abs(int(best["size"]) - 4) <= 2
    first, last = ([bowl(one, 0) + 0.5 for one in lot] for lot in (found[:8], found[-8:]))
    assert sum(last) < sum(first) / 2
    storage = optuna.storages.JournalStorage(optuna.storages.journal.JournalFileBackend(f"{tmp_path}/optuna.journal"))
    study = optuna.load_study(study_name="sweep", storage=storage)
    assert [trial.value for trial in study.trials] == pytest.approx([bowl(one, 0) + 0.5 for one in found])


def test_what_was_proposed_and_not_judged_is_not_proposed_again(tmp_path):
    (tmp_path / "a").mkdir()
    study = Study(SweepFolder(tmp_path / "a"), Sweep(axes=AXES), SEARCH)
    assert study.propose()
    proposed = study.settings()
    again = Study(SweepFolder(tmp_path / "a"), Sweep(axes=AXES), SEARCH)
    assert again.propose() and again.settings() == proposed and again.judge([]) == 0
    with pytest.raises(ConfigError, match="other axes"):
        Study(SweepFolder(tmp_path / "a"), Sweep(axes={**AXES, "size": ("1", "2")}), SEARCH)


FILE = """
experiment.model = @elman
experiment.loss = @autoregressive
experiment.dataset = @random_tokens
experiment.optimizer = @sgd
experiment.steps = 6
experiment.global_batch_size = 3
experiment.seq_len = 5
experiment.hooks = []
experiment.eval_every = 3
experiment.log_every = 3
random_tokens.vocab = 11
elman.width = 4
elman.layers = 1
perplexity.batches = 1
finite_guard.patience = 1
mesh.data = 1
sweep.axes = {'sgd.learning_rate': ('log_uniform', 1e-3, 10.0), 'sgd.momentum': [0.0, 0.9]}
sweep.search = @optuna()
optuna.settings = 6
optuna.at_a_time = 3
sweep.halving = @halving()
halving.rungs = (3,)
"""


def test_a_search_with_halving_from_the_command_line(tmp_path, capsys):
    (tmp_path / "mine.gin").write_text(FILE)
    sweep = [str(tmp_path / "mine.gin"), "--folder", str(tmp_path / "sweep")]
    assert main(["sweep", *sweep, "--dry-run"]) == 0
    assert "6 settings of sgd.learning_rate, sgd.momentum" in capsys.readouterr().out
    assert main(["sweep", *sweep]) == 0
    records = [json.loads(path.read_text()) for path in tmp_path.glob("sweep/trials/*/trial.json")]
    statuses = [record["status"] for record in records]
    assert len(records) == 6 and set(statuses) == {"ok", "pruned"}
    assert all(0.001 <= float(record["settings"]["sgd.learning_rate"]) <= 10 for record in records)
    assert main(["sweep", *sweep]) == 0
    assert "all 6 settings" in capsys.readouterr().out
    assert main(["report", str(tmp_path / "sweep")]) == 0


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("sweep.combine = 'ablate'", "sweep.combine"),
        ("sweep.chain = [@space()]", "sweep.chain"),
        ("optuna.metric = 'valid/entropy'", "lower or"),
    ],
)
def test_a_search_that_cannot_be_is_refused(tmp_path, capsys, change, message):
    (tmp_path / "mine.gin").write_text(f"{FILE}{change}\n")
    assert main(["sweep", str(tmp_path / "mine.gin"), "--folder", str(tmp_path / "sweep")]) == 2
    error = capsys.readouterr().err
    assert message in error and "Traceback" not in error
