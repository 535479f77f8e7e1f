"""From a Spec to objects: what is built, what stays a Spec, what the program supplies."""

import pytest

from lmlab.config import build
from lmlab.contracts import FrozenDict, Spec
from lmlab.errors import ConfigError


def test_annotated_specs_are_kept_and_others_are_built(toys):
    root = toys("toy_loss.rate = @toy_constant\ntoy_loss.parts = {'a': @toy_constant}").build()
    assert isinstance(root.model, Spec) and isinstance(root.evaluators[0], Spec)
    assert type(root.loss).__name__ == "ToyLoss"
    assert root.loss.rate.value == root.loss.parts["a"].value == 0.5


def test_what_is_supplied_reaches_the_components_that_name_it(toys):
    root = toys("toy_loss.rate = @toy_warmup\ntoy_warmup.peak = 2\ntoy_loss.parts = {'a': @toy_constant}").build(
        steps=4
    )
    assert root.steps == 3  # its own parameter, not what the program supplies to schedules
    assert root.loss.rate(5) == 2.0 / 4
    assert root.loss.parts["a"].steps == 4
    model = build(root.model, vocab=11, rngs="rngs", dtype="float32", seq_len=5)
    assert model.given == (11, 3, 7, 0.0, "rngs")
    lstm = build(Spec("model", "toy_lstm", FrozenDict(body=root.model)), vocab=11, rngs="rngs")
    assert lstm.given == (11, 2, root.model)


def test_numbers_pass_through_as_they_are(toys):
    toys()
    tracer = object()
    assert build(Spec("evaluator", "toy_eval", FrozenDict(batches=tracer))).batches is tracer


def test_a_value_that_the_component_refuses_is_shown_with_its_provenance(toys):
    found = toys("toy_gpt.width = 13")
    with pytest.raises(ConfigError) as caught:
        build(found.spec.kwargs["model"], found.provenance, "model", vocab=2, rngs=None)
    message = str(caught.value).splitlines()
    assert message[0].startswith("model: the model 'toy_gpt' (")
    assert message[0].endswith("says: width 13 does not go with layers 3")
    assert message[1:] == ["  toy_gpt.layers = 3  default", "  toy_gpt.width = 13  x.gin:3"]
    assert isinstance(caught.value.__cause__, ValueError)


def test_a_parameter_that_is_gone_since_the_spec_was_saved_is_named(toys):
    toys()
    with pytest.raises(ConfigError, match=r"'toy_eval' .* has no parameter 'batchez'. It has: batches, inner"):
        build(Spec("evaluator", "toy_eval", FrozenDict(batchez=1)))
    with pytest.raises(ConfigError, match=r"no evaluator named 'toy_evil'. Did you mean 'toy_eval'"):
        build(Spec("evaluator", "toy_evil"))
