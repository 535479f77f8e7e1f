"""A Spec is plain data: to JSON, to gin text and back is the identity."""

import json
import pickle
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lmlab.config import ABSENT, Resolved, diff, identity, resolve, spec_from_json, spec_hash, spec_to_json, walk
from lmlab.contracts import FrozenDict, Spec
from lmlab.errors import ConfigError

TOYS = str(Path(__file__).parent / "toys.py")

names = st.sampled_from(["gpt", "lstm", "kind", "name", "kwargs", "mapping", "float"])
scalars = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text()
values = st.recursive(
    scalars,
    lambda inner: (
        st.lists(inner, max_size=3).map(tuple)
        | st.dictionaries(st.text() | names, inner, max_size=3).map(FrozenDict)
        | st.builds(Spec, names, names, st.dictionaries(names, inner, max_size=3).map(FrozenDict))
    ),
    max_leaves=12,
)
specs = st.builds(Spec, names, names, st.dictionaries(names, values, max_size=4).map(FrozenDict))


PATIENT = settings(suppress_health_check=list(HealthCheck), deadline=None)


@given(specs)
@PATIENT
def test_spec_to_json_and_back_is_the_identity(spec):
    text = json.dumps(spec_to_json(spec), allow_nan=False)
    again = spec_from_json(json.loads(text))
    assert again == spec and repr(again) == repr(spec)  # repr tells 1 from 1.0 and True
    assert spec_hash(again) == spec_hash(spec)
    assert diff(again, spec) == []


@given(specs)
@PATIENT
def test_spec_is_hashable_and_pickles(spec):
    again = pickle.loads(pickle.dumps(spec))
    assert again == spec and hash(again) == hash(spec)


toy_gpts = st.builds(
    lambda layers, width, dropout: Spec("model", "toy_gpt", FrozenDict(layers=layers, width=width, dropout=dropout)),
    st.integers(), st.integers(), st.floats(allow_nan=False),
)  # fmt: skip
toy_models = st.recursive(
    toy_gpts,
    lambda inner: st.builds(
        lambda layers, body: Spec("model", "toy_lstm", FrozenDict(layers=layers, body=body)),
        st.integers(), st.none() | inner,
    ),
    max_leaves=3,
)  # fmt: skip
toy_schedules = st.builds(
    lambda peak, warmup: Spec("schedule", "toy_warmup", FrozenDict(peak=peak, warmup=warmup)),
    st.floats(allow_nan=False), st.integers(),
) | st.floats(allow_nan=False).map(lambda value: Spec("schedule", "toy_constant", FrozenDict(value=value)))  # fmt: skip
toy_losses = st.fixed_dictionaries({
    "rate": st.floats(allow_nan=False) | toy_schedules,
    "smoothing": st.floats(allow_nan=False),
    "name": st.text(),
    "flag": st.booleans(),
    "mode": st.sampled_from(["sum", "mean", 3]),
    "maybe": st.none() | st.integers(),
    "sizes": st.lists(st.integers(), max_size=3).map(tuple),
    "pair": st.tuples(st.text(), st.floats(allow_nan=False)),
    "names": st.lists(st.text(), max_size=2).map(tuple),
    "either": st.integers() | st.floats(allow_nan=False),
    "table": st.dictionaries(st.text(), st.floats(allow_nan=False), max_size=2).map(FrozenDict),
    "parts": st.dictionaries(st.text(), toy_schedules, max_size=3).map(FrozenDict),
    "anything": scalars | st.lists(scalars, max_size=2).map(tuple),
}).map(lambda kwargs: Spec("loss", "toy_loss", FrozenDict(kwargs)))  # fmt: skip
toy_evaluators = st.builds(
    lambda batches, inner: Spec("evaluator", "toy_eval", FrozenDict(batches=batches, inner=inner)),
    st.integers(), st.none() | toy_schedules,
)  # fmt: skip
toy_roots = st.fixed_dictionaries({
    "model": toy_models,
    "steps": st.integers(),
    "loss": toy_losses,
    "evaluators": st.lists(toy_evaluators, max_size=3).map(tuple),
    "second": st.none() | toy_models,
    "only": st.none() | toy_evaluators,
    "log_every": st.integers(),
}).map(lambda kwargs: Spec("settings", "toy_root", FrozenDict(kwargs)))  # fmt: skip


@given(toy_roots)
@PATIENT
def test_gin_text_resolves_to_the_same_spec(own_catalogue, folder, spec):
    (folder / "config.gin").write_text(Resolved(spec).gin(), encoding="utf-8")
    again = resolve("config.gin", plugins=[TOYS], root="toy_root").spec
    assert again == spec and spec_hash(again) == spec_hash(spec)  # the hash tells 1 from 1.0 and True


def test_an_instance_inside_another_of_its_component_survives_gin(toys):
    """Written without a scope, the inner one would take the outer one's scope, and hold itself."""
    root = toys("toy_gpt.layers = 5").spec.kwargs
    inner = Spec("model", "toy_lstm", FrozenDict({"layers": 2, "body": root["model"]}))
    outer = Spec("model", "toy_lstm", FrozenDict({"layers": 2, "body": inner}))
    spec = Spec("settings", "toy_root", FrozenDict({**root, "model": inner, "second": outer}))
    assert resolve([], [Resolved(spec).gin()], [TOYS], "toy_root").spec == spec


def test_gin_text_carries_provenance_as_comments_that_are_read_over(toys):
    found = toys("toy_gpt.layers = 5")
    assert "toy_gpt.layers = 5" in found.gin() and "# x.gin:3" in found.gin()
    again = resolve([], [found.gin()], [TOYS], "toy_root")
    assert again.spec == found.spec
    assert again.gin().count("# command line") == len(again.provenance)


def test_a_resolved_configuration_is_saved_whole(toys):
    found = toys("toy_gpt.layers = 5", "toy_eval.batches = 2")
    again = Resolved.from_json(json.loads(json.dumps(found.to_json())))
    assert again == found and again.provenance == found.provenance
    assert (again.files, again.overrides, again.plugins) == (("x.gin",), ("toy_eval.batches = 2",), (TOYS,))


def test_a_saved_configuration_that_was_changed_by_hand_is_refused(toys):
    saved = toys().to_json()
    saved["spec"]["kwargs"]["steps"] = 4
    with pytest.raises(ConfigError, match="it was changed after it was saved"):
        Resolved.from_json(saved)
    with pytest.raises(ConfigError, match="not a saved configuration"):
        Resolved.from_json({"spec": saved["spec"]})


def test_identity_leaves_out_what_does_not_change_what_is_learned(toys):
    base, hashes = toys(), set()
    for override in ("toy_root.log_every = 5", "toy_loss.name = 'b'"):
        other = toys("", override)
        assert other.identity == base.identity and other.hash != base.hash
        hashes.add(other.hash)
    assert toys("", "toy_gpt.layers = 5").identity != base.identity
    assert len(hashes) == 2
    assert "log_every" not in identity(base.spec).kwargs


def test_hashes_are_the_same_in_every_process():
    spec = Spec("a", "b", FrozenDict(x=1, y=FrozenDict(z=(1.0, None, "ü"))))
    program = (
        "from lmlab.config import *; from lmlab.contracts import *\n"
        "print(spec_hash(Spec('a', 'b', FrozenDict(y=FrozenDict(z=(1.0, None, 'ü')), x=1))))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, encoding="utf-8", check=True)
    assert done.stdout.strip() == spec_hash(spec)
    assert spec_hash(spec) != spec_hash(Spec("a", "b", FrozenDict(x=1.0, y=FrozenDict(z=(1.0, None, "ü")))))


def test_diff_names_each_place_once(toys):
    a = toys("toy_loss.sizes = [1]\ntoy_loss.rate = @toy_warmup\ntoy_warmup.peak = 1")
    b = toys("toy_loss.sizes = [1, 2]\ntoy_loss.rate = 1", "toy_root.model = @toy_lstm", "toy_root.steps = 4")
    assert [path for path, _, _ in diff(a.spec, b.spec)] == ["model", "steps", "loss.rate", "loss.sizes.1"]
    assert diff(a.spec, b.spec)[3][1:] == (ABSENT, 2)
    assert diff(1, True) == [("", 1, True)] and diff(1, 1.0) == [("", 1, 1.0)]


def test_walk_gives_every_component_with_its_path(toys):
    found = toys("toy_loss.parts = {'a': @toy_constant}")
    assert [(path, spec.name) for path, spec in walk(found.spec)] == [
        ("", "toy_root"),
        ("model", "toy_gpt"),
        ("loss", "toy_loss"),
        ("loss.parts.a", "toy_constant"),
        ("evaluators.0", "toy_eval"),
    ]
