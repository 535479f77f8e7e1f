import math
from pathlib import Path

import jax
import numpy as np
import pytest

from lmlab.config import build
from lmlab.errors import ConfigError
from lmlab.training.cost import count_by_group, device_bytes, matmul_flops, total_bytes
from lmlab.training.program import Program, compute_dtype


def refusal(resolved) -> str:
    with pytest.raises(ConfigError) as refused:
        Program(resolved)
    return str(refused.value)


def test_a_loss_that_the_model_cannot_serve_is_refused_with_the_models_that_can(tiny):
    text = refusal(tiny("experiment.model = @rock"))
    assert text.startswith("the loss 'autoregressive' needs a CausalLM; the model 'rock' has no capability")
    fitting = text.split("models that fit: ")[1]
    assert "bigram" in fitting
    assert "gpt" in fitting
    assert "rock" not in fitting


def test_it_is_refused_before_any_data_is_read(tiny, monkeypatch):
    from lmlab.data.datasets.random_tokens import RandomTokens

    monkeypatch.setattr(RandomTokens, "split", lambda self, name: pytest.fail("data was read"))
    refusal(tiny("experiment.model = @rock"))


@pytest.mark.parametrize(
    ("binding", "text"),
    [
        ("experiment.stop_at = 13", "experiment.stop_at = 13 lies behind the end of the run, experiment.steps = 12"),
        ("experiment.steps_per_dispatch = 2", "steps_per_dispatch = 2 does not divide experiment.log_every = 3"),
        ("experiment.steps_per_dispatch = 3; checkpoints.every = 4", "= 3 does not divide checkpoints.every = 4"),
        ("experiment.microbatches = 3", "experiment.global_batch_size = 8 does not divide over 1 devices × 3"),
        ("mesh.data = 3", "experiment.global_batch_size = 8 does not divide over 3 devices"),
        ("mesh.data = 9", "does not fit on 8 devices"),
    ],
)
def test_numbers_that_do_not_fit_are_refused(tiny, binding, text):
    assert text in refusal(tiny(binding))


def test_the_compute_dtype_is_float32_on_cpu_unless_asked_otherwise():
    assert compute_dtype("auto") == "float32"
    assert compute_dtype("bfloat16") == "bfloat16"


def test_the_cost_is_known_without_computing_anything(tiny, monkeypatch):
    program = Program(tiny())
    B, T, V, D = 8, 7, 11, 5
    # Forward: one product of (B·T, D) with (D, V); backward: two of the same size.
    assert program.step_flops() == 3 * 2 * B * T * D * V
    assert count_by_group(program.model.shapes) == {"embedding": V * D, "head": D * V}
    assert total_bytes(program.abstract_state.params) == 4 * 2 * V * D
    assert program.abstract_batch["tokens"].shape == (B, T)


def test_the_share_of_one_device_is_an_eighth_where_parameters_are_split(tiny):
    split = Program(tiny("mesh.data = 1; mesh.fsdp = 8; bigram.width = 8; mesh.rules = (('embedding', (None, 'fsdp')), "
                         "('head', ('fsdp', None)))"))  # fmt: skip
    params = split.abstract_state.params
    assert device_bytes(params) * 8 == total_bytes(params)


def test_the_body_of_a_scan_counts_once_per_iteration():
    a = jax.ShapeDtypeStruct((3, 3), "float32")

    def chain(a):
        return jax.lax.scan(lambda x, _: (jax.checkpoint(lambda x: x @ a)(x), None), a, length=7)[0]

    assert matmul_flops(jax.make_jaxpr(chain)(a)) == 7 * 2 * 3**3
    either = jax.jit(lambda a: jax.lax.cond(a[0, 0] > 0, chain, lambda a: a @ a, a))
    assert matmul_flops(jax.make_jaxpr(either)(a)) == 7 * 2 * 3**3


def test_a_convolution_counts_two_per_multiply_add():
    image, kernel = jax.ShapeDtypeStruct((2, 3, 11), "float32"), jax.ShapeDtypeStruct((5, 3, 4), "float32")
    jaxpr = jax.make_jaxpr(lambda x, k: jax.lax.conv_general_dilated(x, k, (1,), "VALID"))(image, kernel)
    assert matmul_flops(jaxpr) == 2 * (2 * 5 * 8) * (3 * 4)


@pytest.mark.parametrize("tokenizer", ["words", "bytes", "characters"])
def test_bytes_and_words_of_a_whole_split_are_those_of_its_text_whatever_the_tokenizer_loses(tiny, tokenizer):
    Path("text").mkdir()
    for n in range(40):
        Path(f"text/{n}.txt").write_text(f"The  fox no. {n}\njumps\tover {n % 3} l\u00e4zy dogs .\n" * 3)
    program = Program(tiny(
        f"experiment.dataset = @text_files; experiment.tokenizer = @{tokenizer}; text_files.train = 'text/*.txt'",
        "text_files.valid_share = 0.3; experiment.evaluators = [@perplexity]; perplexity.batches = None",
        "characters.min_count = 50" if tokenizer == "characters" else "experiment.steps = 12",
    ))  # fmt: skip
    found = build(program.experiment.evaluators[0]).bind(program)(program.init_state())
    texts = [example.text for example in program.data._dataset.split("valid")]
    assert sum(len(t.encode()) for t in texts) == pytest.approx(
        found["valid/nats"] / found["valid/bits_per_byte"] / math.log(2), rel=1e-6
    )
    words = sum(len(t.split()) for t in texts)
    assert words == pytest.approx(found["valid/nats"] / math.log(found["valid/ppl/word"]), rel=1e-6)


HEADED = "experiment.loss = @odd_or_even"


def test_a_loss_with_parameters_of_its_own_puts_a_head_on_the_model(tiny):
    plain, headed = Program(tiny()), Program(tiny(HEADED))
    own = {path: shape.shape for path, shape in headed.model.shapes.items() if path not in plain.model.shapes}
    assert own == {"task_head/kernel": (5, 2), "task_head/bias": (2,)}
    params = headed.model.init(jax.random.key(3))
    for path, value in plain.model.init(jax.random.key(3)).items():  # the body is the one without a head
        assert (params[path] == value).all()
    step, state = headed.compile_step(), headed.init_state()
    before = jax.device_get(state.params)
    state, _ = step(state, headed.partitioner.place(headed.data.train.batch(0)))
    assert all((jax.device_get(state.params)[path] != before[path]).any() for path in before)


def test_a_loss_of_several_capabilities_is_refused_with_all_of_them(tiny):
    text = refusal(tiny("experiment.model = @rock", HEADED))
    assert text.startswith("the loss 'odd_or_even' needs a TokenEncoder or CausalLM; the model 'rock' has no")


def test_a_loss_without_evaluators_of_its_own_is_measured_by_itself(tiny):
    """The default evaluator is `held_out`; bound to [] in these tests' file, so it is asked for."""
    program = Program(tiny(HEADED, "experiment.evaluators = [@held_out]", "held_out.batches = None"))
    measure = build(program.experiment.evaluators[0]).bind(program)
    state = program.init_state()
    found = measure(state)
    assert found == measure(state)  # also what is drawn is drawn again
    params, data = jax.device_get(state.params), program.data.split("valid")
    loss = jax.jit(lambda params, row: program.loss(program.model.bind(params), row, None, 0)[:2])
    sums = np.zeros(2)
    for i in range(len(data)):  # row by row: what is drawn does not depend on the rows beside it
        batch = data.batch(i)
        for b in range(8):
            row = {name: values[b : b + 1] for name, values in batch.items()}
            sums += np.float64(loss(params, row))
    assert 0 < sums[1] < data.targets
    assert found == {"valid/loss": pytest.approx(sums[0] / sums[1]), "valid/nats": pytest.approx(sums[0] / sums[1])}
