import jax
import numpy as np
import pytest

from lmlab.errors import CheckpointError
from lmlab.testing.tiny import tiny_run
from lmlab.training.experiment import InitFrom
from lmlab.training.init_from import load_params, make_plan, rename
from lmlab.training.run import Run


def plan(saved, target, **settings):
    return make_plan(saved, target, InitFrom(run="source", **settings))


def test_equal_paths_are_loaded():
    found = plan(["a", "b"], ["b", "a"])
    assert found.loaded == {"a": "a", "b": "b"}
    assert found.report("source") == "parameters from source: 2 loaded, 0 new, 0 ignored"


def test_the_first_rule_that_matches_renames_a_path():
    rules = ((r"^encoder/(.*)$", r"body/\1"), (r"encoder", "never"))
    assert rename("encoder/0/kernel", rules) == "body/0/kernel"
    assert rename("head", rules) == "head"
    found = plan(["encoder/x"], ["body/x"], rename=rules)
    assert found.loaded == {"body/x": "encoder/x"}
    assert "  body/x ← encoder/x" in found.report("source")


def test_a_missing_parameter_is_refused_with_those_that_are_there():
    with pytest.raises(
        CheckpointError, match=r"source has no head/kernel. It has: body, tail. .*init_from.allow_missing"
    ):
        plan(["body", "tail"], ["body", "head/kernel"])


def test_a_missing_parameter_that_may_be_new_is_reported_and_so_is_one_that_nothing_takes():
    found = plan(["body", "tail"], ["body", "head/kernel"], allow_missing=("^head/",))
    assert (found.loaded, found.new, found.ignored) == ({"body": "body"}, ("head/kernel",), ("tail",))
    assert found.report("source").split("\n")[1:] == ["  new: head/kernel", "  ignored: tail"]


def test_two_parameters_that_get_the_same_name_are_refused():
    with pytest.raises(CheckpointError, match="turns both 'a/x' and 'b/x' into 'x'"):
        plan(["a/x", "b/x"], ["x"], rename=((r"^[ab]/", ""),))


def test_an_adapter_may_be_new_or_go_on_and_is_not_lost():
    own = ["body", "adapter/body/a"]
    assert plan(["body"], own).new == ("adapter/body/a",)
    assert plan(own, own).loaded == {path: path for path in own}
    with pytest.raises(CheckpointError, match=r"source has an adapter \(adapter/body/a\) .* lmlab merge source --run"):
        plan(own, ["body"])


def test_of_a_longer_table_of_positions_the_first_are_taken():
    folder, path = tiny_run("gpt", "autoregressive"), "positions/embedding"
    table = Run(folder).state.params[path]
    wanted = lambda rows: {path: jax.ShapeDtypeStruct((rows, table.shape[1]), "float32", sharding=table.sharding)}  # noqa: E731
    found, plan = load_params(InitFrom(run=str(folder)), wanted(5), [path])
    np.testing.assert_array_equal(found[path], table[:5])
    assert f"{path}: the first 5 of 7 positions" in plan.report(folder)
    with pytest.raises(CheckpointError, match=r"float32\[7, 12\] there, float32\[11, 12\] here"):
        load_params(InitFrom(run=str(folder)), wanted(11), [path])
