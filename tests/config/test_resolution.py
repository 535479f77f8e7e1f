"""From statements to a Spec: precedence, macros, scopes, provenance; and every mistake is named."""

import textwrap
from pathlib import Path

import pytest

from lmlab.config import resolve
from lmlab.contracts import FrozenDict, Spec
from lmlab.errors import ConfigError

TOYS = str(Path(__file__).parent / "toys.py")


def refused(toys, *args) -> str:
    with pytest.raises(ConfigError) as caught:
        toys(*args)
    assert len(str(caught.value).splitlines()) <= 24, "more than a screen"
    return str(caught.value)


def write(folder, **texts):
    for name, text in texts.items():
        (folder / f"{name}.gin").write_text(textwrap.dedent(text), encoding="utf-8")


BASE = "toy_root.model = @toy_gpt\ntoy_root.steps = 3\n"


def test_a_spec_holds_every_parameter_with_its_provenance(toys):
    found = toys("toy_gpt.layers = 5", "toy_eval.batches = 2")
    assert found.spec.kind == "settings"
    assert found.spec.kwargs["model"] == Spec("model", "toy_gpt", FrozenDict(layers=5, width=7, dropout=0.0))
    assert found.provenance["model"] == "x.gin:1"
    assert found.provenance["model.layers"] == "x.gin:3"
    assert found.provenance["model.width"] == "default"
    assert found.provenance["evaluators.0.batches"] == "command line"
    assert type(found.spec.kwargs["model"].kwargs["dropout"]) is float  # the default is written 0, annotated float


def test_later_files_win_over_earlier_ones_and_the_command_line_over_all(toys, folder):
    write(folder, a=BASE + "toy_gpt.layers = 1\ntoy_gpt.width = 1\n", b="toy_gpt.layers = 2\n")
    found = resolve(["a.gin", "b.gin"], ["toy_gpt.width = 9", "toy_gpt.width = 11"], [TOYS], root="toy_root")
    assert found.spec.kwargs["model"].kwargs == {"layers": 2, "width": 11, "dropout": 0.0}


def test_an_includer_overrides_what_it_includes_but_only_below_the_include(toys, folder):
    write(folder, part="toy_gpt.layers = 1\n", good="include 'part.gin'\ntoy_gpt.layers = 2\n" + BASE)
    assert resolve("good.gin", (), [TOYS], "toy_root").spec.kwargs["model"].kwargs["layers"] == 2
    write(folder, bad="toy_gpt.layers = 2\ninclude 'part.gin'\n" + BASE)
    with pytest.raises(ConfigError, match=r"bad.gin:1: 'toy_gpt.layers = 2' is undone by .* \(part.gin:1: 1\)"):
        resolve("bad.gin", (), [TOYS], "toy_root")


def test_overrides_may_be_a_mapping_in_python(toys):
    found = resolve([], {"toy_root.model": Spec("model", "toy_lstm"), "toy_root.steps": 5}, [TOYS], "toy_root")
    assert found.spec.kwargs["model"].name == "toy_lstm"


def test_macros_reach_into_containers_and_through_other_macros(toys):
    found = toys("N = 4\nM = %N\ntoy_loss.sizes = [1, %M]\ntoy_loss.table = {'a': %N}\ntoy_gpt.layers = %M", "N = 6")
    loss = found.spec.kwargs["loss"].kwargs
    assert (loss["sizes"], loss["table"], found.spec.kwargs["model"].kwargs["layers"]) == ((1, 6), {"a": 6.0}, 6)
    assert found.provenance["model.layers"] == "x.gin:7 (%M from x.gin:4 (%N from command line))"


def test_a_macro_may_hold_a_component(toys):
    assert toys("MODEL = @toy_lstm\ntoy_root.second = %MODEL").spec.kwargs["second"].name == "toy_lstm"


def test_scopes_make_second_instances(toys):
    found = toys("toy_gpt.layers = 4\ntoy_gpt.width = 8\ntoy_root.second = @big/toy_gpt\nbig/toy_gpt.layers = 12")
    assert found.spec.kwargs["model"].kwargs["layers"] == 4
    assert found.spec.kwargs["second"].kwargs == {"layers": 12, "width": 8, "dropout": 0.0}


def test_a_component_inside_a_scoped_one_stands_in_its_scope(toys):
    found = toys(
        "toy_root.second = @big/toy_lstm\nbig/toy_lstm.body = @toy_gpt\nbig/toy_gpt.layers = 12\n"
        "big/toy_lstm.layers = 1\ntoy_gpt.layers = 4"
    )
    assert found.spec.kwargs["second"].kwargs["body"].kwargs["layers"] == 12
    assert found.spec.kwargs["model"].kwargs["layers"] == 4


def test_the_parentheses_of_a_reference_mean_nothing(toys):
    assert toys("toy_root.second = @toy_lstm()").spec == toys("toy_root.second = @toy_lstm").spec


def test_a_selector_may_name_the_kind_or_the_registry(toys):
    assert toys("model.toy_gpt.layers = 4\ntoy_root.second = @models.toy_lstm").spec.kwargs["second"].name == "toy_lstm"
    message = refused(toys, "losses.toy_gpt.layers = 4")
    assert "no loss named 'toy_gpt'. ('toy_gpt' is a model.)" in message
    assert "bound twice" in refused(toys, "model.toy_gpt.layers = 4\ntoy_gpt.layers = 4")


def test_blocks_bind_like_single_lines(toys):
    assert toys("toy_gpt:\n  layers = 4\n  width = 5\n").spec.kwargs["model"].kwargs["width"] == 5


def test_defaults_that_are_references_take_bindings(toys):
    found = toys("toy_eval.batches = 2")
    assert found.spec.kwargs["evaluators"] == (Spec("evaluator", "toy_eval", FrozenDict(batches=2, inner=None)),)


# --- Refusals -------------------------------------------------------------------------------------------------


def test_unknown_components_get_near_names_of_their_kind(toys):
    message = refused(toys, None, "toy_root.model = @toy_gtp; toy_root.steps = 1")
    assert message.startswith("command line: no model named 'toy_gtp'. Did you mean 'toy_gpt'")
    message = refused(toys, "toy_gptt.layers = 3")
    assert message.startswith("x.gin:3: no component named 'toy_gptt'. Did you mean 'toy_gpt'")


def test_a_path_through_the_tree_is_no_binding(toys):
    message = refused(toys, "toy_root.model.layers = 3")
    assert "A binding names the component itself: gpt.layers, not toy_root.model.layers." in message


def test_unknown_parameters_list_the_known_ones(toys):
    message = refused(toys, "toy_gpt.layer = 3")
    assert message.startswith("x.gin:3: the model 'toy_gpt' has no parameter 'layer'. Did you mean 'layers'?")
    assert "parameters of toy_gpt: layers, width, dropout" in message


def test_what_the_program_supplies_cannot_be_bound(toys):
    assert "x.gin:3: 'toy_gpt.vocab' is shadowed: the program itself gives 'vocab'" in refused(
        toys, "toy_gpt.vocab = 3"
    )


@pytest.mark.parametrize(
    ("binding", "wants", "hint"),
    [
        ("toy_gpt.layers = 'three'", "wants an int, not 'three' (str)", ""),
        ("toy_gpt.layers = True", "wants an int, not True (bool)", ""),
        ("toy_gpt.layers = 4.0", "wants an int, not 4.0 (float)", "Write 4."),
        ("toy_gpt.dropout = None", "wants a float, not None (None)", ""),
        ("toy_loss.flag = 1", "wants a bool, not 1 (int)", ""),
        ("toy_loss.flag = 'True'", "wants a bool, not 'True' (str)", "Write True, without quotes."),
        ("toy_loss.mode = 'median'", "wants 'sum' | 'mean' | 3, not 'median' (str)", ""),
        ("toy_loss.sizes = 3", "wants a sequence of int, not 3 (int)", "Write [3]."),
        ("toy_loss.sizes = [3, 'x']", "not [3, 'x'] (sequence): item 1 is 'x' (str)", ""),
        ("toy_loss.pair = ['a']", "wants (str, float), not ['a'] (sequence): it has 1 items, not 2", ""),
        ("toy_loss.rate = @toy_gpt", "wants a float | schedule, not @toy_gpt (model)", "known schedule names: "),
        ("toy_loss.rate = 'toy_constant'", "wants a float | schedule", "Write @toy_constant, without quotes."),
        ("toy_root.evaluators = @toy_eval", "wants a sequence of evaluator", "Write [@toy_eval]."),
        ("toy_root.only = @toy_lstm", "wants @toy_eval | None, not @toy_lstm (model)", ""),
        ("toy_loss.name = b'x'", "b'x' (bytes) is no plain data", ""),
        ("toy_loss.smoothing = 1j", "(complex) is no plain data", ""),
        ("toy_loss.table = {1: 2}", "the key 1 of a dict is no string", ""),
        ("toy_loss.table = {'a': 1, 'a': 2}", "the key 'a' stands twice", ""),
    ],
)
def test_values_of_the_wrong_type_are_named_with_what_is_wanted(toys, binding, wants, hint):
    message = refused(toys, binding)
    assert message.startswith("x.gin:3: ") and wants in message and hint in message, message


def test_a_type_error_in_a_macro_names_both_places(toys):
    assert refused(toys, "N = 'x'\ntoy_gpt.layers = %N").startswith("x.gin:4 (%N from x.gin:3): toy_gpt.layers wants")


def test_missing_values_are_all_named(toys):
    message = refused(toys, None, "toy_root.loss = @toy_loss")
    assert "toy_root.model has no value: the settings 'toy_root'" in message and "known model names: " in message
    assert "toy_root.steps has no value" in message and "--set 'toy_root.steps = ...'" in message


def test_required_is_a_missing_value_until_it_is_overridden(toys):
    text = "toy_gpt.layers = %gin.REQUIRED"
    message = refused(toys, text)
    assert "toy_root.model.layers has no value" in message and "(x.gin:3 requires it)" in message
    assert toys(text, "toy_gpt.layers = 2").spec.kwargs["model"].kwargs["layers"] == 2


def test_an_unset_macro_gets_near_names(toys):
    message = refused(toys, "LAYERS = 3\ntoy_gpt.layers = %LAYRS")
    assert message.startswith("x.gin:4: no macro named 'LAYRS' is set. Did you mean 'LAYERS'?")
    assert "gin's constants are not supported" in refused(toys, "toy_gpt.layers = %sizes.BIG")


def test_circles_are_refused(toys):
    assert "the macro '%A' is defined by itself" in refused(toys, "A = %B\nB = [%A]\ntoy_loss.anything = %A")
    message = refused(toys, "toy_root.second = @toy_lstm\ntoy_lstm.body = @toy_lstm")
    assert "'@toy_lstm' holds itself: @toy_root -> @toy_lstm -> @toy_lstm" in message
    scoped = "toy_root.second = @a/toy_lstm\na/toy_lstm.body = @b/toy_lstm\nb/toy_lstm.body = None"
    assert toys(scoped).spec.kwargs["second"].kwargs["body"].kwargs["body"] is None


def test_the_same_key_twice_in_one_file_shows_both_lines(toys):
    message = refused(toys, "toy_gpt.layers = 4\ntoy_gpt.width = 5\ntoy_gpt.layers = 6")
    assert message.startswith(
        "x.gin:5: 'toy_gpt.layers' is bound twice in one file, first at x.gin:3 (4), then here (6)."
    )
    assert "bound twice in one string" in refused(toys, "", "N = 1; N = 2")


def test_a_component_that_is_not_used_says_what_is_used_instead(toys):
    message = refused(toys, "toy_lstm.layers = 4")
    assert message.startswith(
        "x.gin:3: 'toy_lstm.layers' changes nothing: toy_lstm is not used: toy_root.model is @toy_gpt"
    )
    assert "toy_root.model is @toy_lstm (command line)" in refused(
        toys, "toy_gpt.layers = 4", "toy_root.model = @toy_lstm"
    )


def test_a_scope_that_is_not_used_names_the_used_ones(toys):
    assert "no toy_gpt is used in the scope 'big', only @toy_gpt" in refused(toys, "big/toy_gpt.layers = 4")


def test_a_binding_that_every_scope_overrides_is_refused(toys):
    text = "toy_root.second = @a/toy_lstm\na/toy_lstm.layers = 1\ntoy_lstm.layers = 2"
    assert "every toy_lstm that is used has its own layers, bound in its scope" in refused(toys, text)


def test_several_bindings_without_effect_are_shown_at_once(toys):
    message = refused(toys, "toy_lstm.layers = 4\nbig/toy_gpt.layers = 4\nFOO = 1\nlayers = 3")
    assert [line.split(":")[1] for line in message.splitlines()] == ["3", "4", "5", "6"]
    assert "nothing uses the macro 'FOO'" in message
    assert "nothing uses the macro 'layers'. Did you mean 'toy_gpt.layers'?" in message
    assert "'... = @toy_lstm', to use it?" in refused(toys, "toy_lstm = 3")


def test_a_macro_is_undone_together_with_the_line_that_used_it(toys):
    text = "N = 4\ntoy_gpt.layers = %N"
    assert toys(text, "toy_gpt.layers = 2").spec.kwargs["model"].kwargs["layers"] == 2
    # but a macro that is set after its use was undone says something that the run does not do
    assert "nothing uses the macro 'N'" in refused(toys, text, "toy_gpt.layers = 2", "N = 8")


def test_a_component_is_not_a_string_away(toys):
    assert "Write @toy_gpt, without quotes." in refused(toys, None, "toy_root.model = 'toy_gpt'; toy_root.steps = 1")


def test_gin_imports_load_plugins_before_any_name_is_resolved(own_catalogue, folder):
    (folder / "mine.py").write_text(
        "from lmlab.registry import settings\n"
        "@settings.register('mine')\n"
        "def mine(x: int = 1) -> int:\n"
        "    '''Mine.'''\n"
        "    return x\n"
    )
    (folder / "a.gin").write_text("mine.x = 3\nimport mine\n")
    found = resolve("a.gin", root="mine")
    assert found.build() == 3
    assert found.plugins == (str(folder / "mine.py"),)
    with pytest.raises(ConfigError, match=r"command line: plug-in 'nowhere.at_all': there is no module 'nowhere'"):
        resolve([], ["import nowhere.at_all"])


def test_a_default_may_follow_what_another_component_says(folder, own_catalogue):
    """An experiment's evaluators are those of its loss, unless they are bound."""

    def evaluators(*bindings: str) -> list[str]:
        found = resolve([], bindings, [TOYS], root="toy_follower")
        return [spec.name for spec in found.spec.kwargs["evaluators"]]

    assert evaluators("toy_follower.loss = @toy_loss") == ["toy_eval"]
    assert evaluators("toy_follower.loss = @toy_loss", "toy_eval.batches = 5") == ["toy_eval"]
    assert evaluators("toy_follower.loss = @toy_quiet_loss") == ["toy_other_eval"]
    assert evaluators("toy_follower.loss = @toy_loss", "toy_follower.evaluators = []") == []
    with pytest.raises(ConfigError, match=r"toy_eval\.batches"):  # nothing consumes it
        evaluators("toy_follower.loss = @toy_quiet_loss", "toy_eval.batches = 5")
