"""The judges of SeqGAN's paper: both NLLs of a tempered model against NumPy, and which curve lies below which."""

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from lmlab.config import build, resolve
from lmlab.evaluation.oracle_nats import OracleNats
from lmlab.generation.samplers import Sample
from lmlab.papers.measuring import NotMeasured, RunAt
from lmlab.registry import load_plugin
from lmlab.training.program import Program

ROOT = Path(__file__).parents[2]
CHECKS = load_plugin(str(ROOT / "experiments" / "papers" / "seqgan" / "checks.py"))
SMALL = (
    "seqgan_oracle.vocab = 11; seqgan_oracle.length = 5; seqgan_oracle.embedding = 3; seqgan_oracle.width = 5;"
    "seqgan_oracle.train_examples = 67; seqgan_oracle.valid_examples = 17; seqgan_oracle.test_examples = 17;"
    "text_gan.width = 5; text_gan.filter_widths = (1,); text_gan.filters = (3,); text_gan.init_scale = 2.0;"
    "text_gan.discriminator_embedding = 3; experiment.global_batch_size = 64; experiment.seq_len = 5; mesh.data = 1"
)
TEXTS = 512


@pytest.fixture(scope="module")
def run():
    """A run folder's program and state, as a judge has them, with initial parameters."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(ROOT)
        program = Program(resolve(["experiments/papers/seqgan/mle.gin"], [SMALL]))
        return SimpleNamespace(program=program, state=program.init_state())


@pytest.fixture(scope="module")
def points(run):
    return CHECKS.points(run, (1.0, 2.5), TEXTS)


def test_the_tempered_model_has_the_nll_of_its_logits_times_alpha(run, points):
    sentences = np.stack([row.ids for row in build(run.program.experiment.dataset).split("test")])
    logits = np.asarray(run.program.model.bind(run.state.params).logits(sentences[:, :-1]), np.float64)
    for alpha, point in zip((1.0, 2.5), points, strict=True):
        weights = np.exp(alpha * logits)
        law = np.take_along_axis(weights, sentences[:, 1:, None], -1)[..., 0] / weights.sum(-1)
        assert point.test == pytest.approx(-np.log(law).mean(), rel=1e-5)


def test_and_writes_what_a_sampler_of_that_temperature_writes(run, points):
    """The same texts, but for rounding, from the same keys."""
    sampler = Sample(temperature=1 / 2.5)
    expected = OracleNats("test", TEXTS, sampler=sampler).bind(run.program)(run.state)[CHECKS.ORACLE]
    assert points[1].oracle == pytest.approx(expected, abs=1e-4)
    assert abs(points[0].oracle - expected) > 5e-3


def test_a_point_is_dominated_by_the_lines_between_points_too():
    reference = tuple(CHECKS.Point(*pair) for pair in [(10.0, 7.0), (8.0, 8.0), (7.0, 10.0)])
    below, above = CHECKS.Point(8.9, 7.4), CHECKS.Point(9.1, 7.6)  # of the line, which has (9.0, 7.5)
    beyond = CHECKS.Point(6.9, 12.0)
    assert CHECKS.share_below(reference, (above,)) == 1
    assert CHECKS.share_below(reference, (below,)) == CHECKS.share_below(reference, (beyond,)) == 0
    assert CHECKS.share_below(reference, (above, below, above, above)) == 0.75
    assert CHECKS.share_below(reference, reference) == 1


def recorded(*rows):
    records = tuple({"step": step, "phase": "eval", CHECKS.ORACLE: a, CHECKS.TEST: b} for step, a, b in rows)
    return {"run": RunAt(Path("run"), rows[-1][0], 10**6, records)}


def test_gain_and_overfitting_are_read_from_the_records():
    runs = recorded((780, 9.5, 7.7), (18_720, 9.1, 8.9), (159_120, 8.8, 9.3))
    assert CHECKS.gained(runs) == pytest.approx(0.3)
    assert CHECKS.overfitted(runs) == pytest.approx(1.6)
    with pytest.raises(NotMeasured, match="18720"):
        CHECKS.gained(recorded((780, 9.5, 7.7), (159_120, 8.8, 9.3)))


@pytest.mark.long
def test_seqgan_begins_as_its_twin_ends(monkeypatch):
    """After as many steps of maximum likelihood both generators are the same, to rounding."""
    monkeypatch.chdir(ROOT)
    phases = "MLE = 3; PRETRAINED = 5; ROUND = 2; adversarial.rollouts = 2; experiment.steps = 7"
    ends = {}
    for name, more in {"mle": "experiment.steps = 3", "seqgan": phases}.items():
        program = Program(resolve([f"experiments/papers/seqgan/{name}.gin"], [SMALL, more]))
        step, state = program.compile_step(), program.init_state()
        for k in range(3):
            state, _ = step(state, program.partitioner.place(program.data.train.batch(k)))
        ends[name] = {path: np.asarray(value) for path, value in state.params.items() if path.startswith("generator")}
    assert ends["mle"].keys() == ends["seqgan"].keys()
    for path, value in ends["mle"].items():
        np.testing.assert_allclose(value, ends["seqgan"][path], atol=1e-6)
