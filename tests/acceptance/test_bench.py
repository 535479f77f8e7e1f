"""`lmlab bench`: what it prints and writes, for shapes that say nothing about speed."""

import json
import os
from pathlib import Path

import jax
import numpy as np
import optax
import pytest

from lmlab.cli.main import main
from lmlab.config import resolve
from lmlab.errors import LmlabError
from lmlab.evaluation.throughput import Contestant, flops_per_token, ratios, reference, take_turns
from lmlab.evaluation.yardstick import load_module
from lmlab.training.program import Program
from tests.later import later

BENCHMARKS = Path(__file__).parents[2] / "experiments" / "benchmarks"
TINY = "experiment.global_batch_size = 8; experiment.seq_len = 8; {0}.layers = 2; {0}.width = 16; mesh.data = 1"


@pytest.mark.parametrize(("file", "model"), later([("gpt_4x128", "gpt"), ("lstm_2x384", "lstm")]))
def test_bench_compares_with_the_programs_beside_the_file(file, model, tmp_path, capsys):
    out = tmp_path / "found.json"
    words = ["bench", str(BENCHMARKS / f"{file}.gin"), "--set", TINY.format(model), "--rounds", "2", "--steps", "2"]
    more = ["--set", "gpt.heads = 2"] if model == "gpt" else []
    assert main([*words, *more, "--out", str(out), "--peak", "1"]) == 0
    found = json.loads(out.read_text())
    shown = capsys.readouterr().out
    assert f"reference_{model}" in shown and "MFU" in shown and "loader" in shown
    assert found["tokens_per_second"].keys() >= {"lmlab", f"reference_{model}"}
    least_to_most = found["lmlab_over"][f"reference_{model}"]
    assert least_to_most[1] <= least_to_most[0] <= least_to_most[2]
    assert found["python_milliseconds_per_step"] > 0 and found["mfu"] > 0
    assert f"torch_{model}" in found["tokens_per_second"] or "torch is not installed" in found["skipped"][0]


@pytest.mark.parametrize(
    ("file", "shapes"),
    [("gpt_6x384", (6, 384, 256, 8)), ("gpt_4x128", (4, 128, 64, 12)), ("lstm_2x384", (2, 384, 256, 8))],
)
def test_benchmarks_have_the_shapes_in_their_names(file, shapes):
    spec = resolve([str(BENCHMARKS / f"{file}.gin")]).spec.kwargs
    model = spec["model"].kwargs
    assert (model["layers"], model["width"], spec["seq_len"], spec["global_batch_size"]) == shapes
    assert spec["dataset"].kwargs["vocab"] == 256


def test_programs_take_turns_so_that_rounds_can_be_paired():
    order = []
    one, other = (Contestant(name, lambda steps, name=name: order.append((name, steps))) for name in "AB")
    take_turns([one, other], steps=3, rounds=2)
    assert order == [("A", 3), ("B", 3)] * 3  # one round to warm up
    one.seconds, other.seconds = [1.0, 2.0], [2.0, 1.0]
    assert ratios(one, other) == [2.0, 0.5]
    assert one.speeds(6) == [6.0, 3.0]


def test_flops_per_token_are_those_of_the_stated_convention():
    text = "experiment.model = @gpt; experiment.loss = @autoregressive; experiment.dataset = @random_tokens; "
    text += "experiment.optimizer = @sgd; sgd.learning_rate = 0.1; experiment.steps = 1; "
    text += "experiment.global_batch_size = 8; experiment.seq_len = 7; gpt.layers = 3; gpt.width = 10; gpt.heads = 2; "
    text += "gpt.bias = False; random_tokens.vocab = 13; experiment.evaluators = []; "
    blocks = 3 * (12 * 10 * 10 + 2 * 10) + 10  # products and scales
    attention = 3 * 7 * 10
    tied = Program(resolve([], [text]))
    assert flops_per_token(tied) == 6 * (blocks + 13 * 10 + attention)
    untied = Program(resolve([], [text + "gpt.tie_embeddings = False"]))
    assert flops_per_token(untied) == 6 * (blocks + 13 * 10 + attention)


PROGRAM = """
import os

if {fails!r} == "missing":
    import a_library_that_is_not_there

def make(**shapes):
    assert shapes["vocab"] == 256, shapes
    return 0, lambda state, tokens, targets: (state + 1, (state, tokens.shape, os.getpid(), 1 // {divisor}))

def sync(loss):
    open({said!r}, "a").write(f"{{loss[0]}} {{loss[1]}} {{loss[2] != {pid}}}\\n")
"""


def test_a_program_beside_has_a_process_of_its_own(tmp_path):
    program = Program(resolve([str(BENCHMARKS / "gpt_4x128.gin")], [TINY.format("gpt")]))
    path, said = tmp_path / "torch_gpt.py", tmp_path / "said.txt"
    written = {"fails": "", "divisor": 1, "said": str(said), "pid": os.getpid()}
    path.write_text(PROGRAM.format(**written))
    take = reference(path, program)
    take(2)
    take(3)
    assert said.read_text().splitlines() == ["1 (8, 8) True", "4 (8, 8) True"]
    path.write_text(PROGRAM.format(**{**written, "fails": "missing"}))
    with pytest.raises(ModuleNotFoundError) as missing:
        reference(path, program)
    assert missing.value.name == "a_library_that_is_not_there"
    path.write_text(PROGRAM.format(**{**written, "divisor": 0}))
    with pytest.raises(LmlabError, match=r"torch_gpt.py: ZeroDivisionError"):
        reference(path, program)(1)


def test_a_reference_that_is_not_there_is_refused(capsys):
    code = main(["bench", str(BENCHMARKS / "gpt_4x128.gin"), "--set", TINY.format("gpt"), "--reference", "none.py"])
    assert code == 2 and "--reference none.py: no such file" in capsys.readouterr().err


def gpt_as_written_by_hand(params, heads):
    def apart(x):  # columns of qkv: lmlab orders them (H, 3, K), the reference (3, H, K)
        return np.swapaxes(x.reshape(*x.shape[:-1], heads, 3, -1), -3, -2).reshape(x.shape)

    def both(name, kind):
        return params[f"blocks/{name}/{kind}"], params[f"blocks/{name}/bias"]

    return {
        "embedding": params["embedding/embedding"],
        "positions": params["positions/embedding"],
        "blocks": {
            "norm1": both("attention_norm", "scale"),
            "qkv": tuple(map(apart, both("attention/qkv", "kernel"))),
            "out": both("attention/out", "kernel"),
            "norm2": both("mlp_norm", "scale"),
            "up": both("mlp/up", "kernel"),
            "down": both("mlp/down", "kernel"),
        },
        "norm": (params["norm/scale"], params["norm/bias"]),
    }


def lstm_as_written_by_hand(params):
    layers = len(params["blocks/recurrent/kernel"])
    names = {"input": "input/kernel", "bias": "input/bias", "recurrent": "recurrent/kernel"}
    return {
        "embedding": params["embedding/embedding"],
        "layers": [{key: params[f"blocks/{name}"][n] for key, name in names.items()} for n in range(layers)],
        "head": (params["head/kernel"], params["head/bias"]),
    }


@pytest.mark.parametrize(("file", "model"), [("gpt_4x128", "gpt"), ("lstm_2x384", "lstm")])
def test_the_program_written_by_hand_has_lmlabs_loss_and_gradient(file, model):
    more = "gpt.heads = 2; experiment.seq_len = 131" if model == "gpt" else ""  # more than one block of queries
    program = Program(resolve([str(BENCHMARKS / f"{file}.gin")], [TINY.format(model), more]))
    drawn = np.random.default_rng(3)
    params = {path: drawn.normal(0, 0.3, leaf.shape).astype(np.float32) for path, leaf in program.model.shapes.items()}
    batch = program.data.train.batch(0)

    def own(params):
        output = program.loss(program.model.bind(params), batch, None, 0)
        return output.total / output.weight

    module = load_module(BENCHMARKS / f"reference_{model}.py")
    by_hand = gpt_as_written_by_hand(params, heads=2) if model == "gpt" else lstm_as_written_by_hand(params)

    def other(params):
        return module.loss_of(params, batch["tokens"], batch["targets"], *([2] if model == "gpt" else []))

    loss, gradient = jax.jit(jax.value_and_grad(own))(params)
    same, also = jax.jit(jax.value_and_grad(other))(by_hand)
    assert float(same) == pytest.approx(float(loss), rel=1e-5)
    assert float(optax.tree.norm(also)) == pytest.approx(float(optax.tree.norm(gradient)), rel=1e-4)
