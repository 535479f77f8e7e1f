"""Layer-wise rates and gradual unfreezing: against PyTorch with a parameter group for every layer."""

from dataclasses import dataclass
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lmlab.config import resolve
from lmlab.errors import ConfigError
from lmlab.optim.layerwise import FROM_THE_INPUT, Layerwise, below_the_last
from lmlab.optim.optimizers import SGD, AdamW
from lmlab.registry import REGISTRIES
from lmlab.testing import of_runs
from lmlab.testing.tiny import Tiny
from lmlab.training.fit import check_optimizer

SHAPES = {"embedding": (7, 5), "blocks/kernel": (3, 5, 2), "norm/scale": (5,), "task_head/kernel": (5, 2)}
ROLES = {"embedding": "embedding", "blocks/kernel": "kernel", "norm/scale": "scale", "task_head/kernel": "kernel"}
STACKED = frozenset({"blocks/kernel"})
BELOW = {"embedding": 4, "blocks/kernel": [3, 2, 1], "norm/scale": 0, "task_head/kernel": 0}
STEPS = 6


def draw(seed):
    rng = np.random.default_rng(seed)
    return {path: rng.normal(size=shape).astype(np.float32) for path, shape in SHAPES.items()}


def descend(optimizer, steps=STEPS):
    rule, params = optimizer.transformation(ROLES), draw(0)
    state = rule.init(params)
    for step in range(steps):
        updates, state = rule.update(draw(step + 1), state, params, step=jnp.int32(step))
        params = {path: params[path] + updates[path] for path in params}
    return params


def below(model, **settings):
    """Layers below the last, by path, of a small model in an experiment."""
    program = Tiny(REGISTRIES["model"].entry(model), Path()).program(**settings)
    found = below_the_last(FROM_THE_INPUT, program.model.shapes, program.model.stacked)
    return {path: value.tolist() for path, value in found.items()}


def test_the_example_of_the_docstring():
    shapes = {"embedding/embedding": (5, 3), "blocks/mlp/up/kernel": (2, 3, 7), "head/kernel": (3, 5)}
    leaves = {path: jax.ShapeDtypeStruct(shape, jnp.float32) for path, shape in shapes.items()}
    found = below_the_last(FROM_THE_INPUT, leaves, frozenset({"blocks/mlp/up/kernel"}))
    assert {path: value.tolist() for path, value in found.items()} == {
        "embedding/embedding": 3, "blocks/mlp/up/kernel": [2, 1], "head/kernel": 0
    }  # fmt: skip


def test_layers_are_counted_from_the_output_in_every_kind_of_model():
    bert = below("bert", loss="@classification")
    assert {bert[f"{name}"] for name in ("embedding/embedding", "positions/embedding", "input_norm/scale")} == {3}
    assert bert["blocks/attention/qkv/bias"] == [2, 1]
    above = {path: value for path, value in bert.items() if path.startswith(("task_head/", "pooler/"))}
    assert len(above) == 4 and set(above.values()) == {0}
    tcn = below("tcn")  # its blocks are numbered, not stacked
    assert (tcn["embedding/embedding"], tcn["blocks/0/first/kernel"], tcn["blocks/1/first/kernel"]) == (3, 2, 1)
    pair = below("encoder_decoder")  # two blocks below three
    assert pair["encoder/mlp/up/kernel"] == [4, 3]
    assert pair["decoder/mlp/up/kernel"] == [2, 1, 0]  # its projection is the embeddings', so that nothing is above


def test_each_layer_has_its_own_rate_as_in_pytorch():
    torch = pytest.importorskip("torch")
    rate, decay, shrink = 0.03, 0.7, 0.3
    parts, groups = {}, []
    for path, value in draw(0).items():
        layers = list(value) if path in STACKED else [value]
        parts[path] = [torch.tensor(layer, requires_grad=True) for layer in layers]
        for part, height in zip(parts[path], np.atleast_1d(BELOW[path]), strict=True):
            decayed = shrink if ROLES[path] in ("kernel", "embedding") else 0.0
            groups.append({"params": [part], "lr": rate * decay**height, "weight_decay": decayed})
    reference = torch.optim.AdamW(groups, betas=(0.8, 0.9), eps=1e-6)
    for step in range(STEPS):
        for path, gradient in draw(step + 1).items():
            for part, own in zip(parts[path], gradient if path in STACKED else [gradient], strict=True):
                part.grad = torch.tensor(own)
        reference.step()
    inner = AdamW(rate, b1=0.8, b2=0.9, eps=1e-6, weight_decay=shrink)
    found = descend(Layerwise(inner, STACKED, decay=decay))
    for path, own in parts.items():
        expected = np.stack([part.detach().numpy() for part in own]).reshape(SHAPES[path])
        np.testing.assert_allclose(found[path], expected, rtol=2e-5, atol=2e-6, err_msg=path)


def test_the_head_learns_first_and_then_one_block_more_every_n_steps():
    start, inner = draw(0), SGD(0.1, weight_decay=0.5)
    for steps in range(1, 10):
        found = descend(Layerwise(inner, STACKED, unfreeze_every=2), steps)
        whole = {  # number of steps that each layer has made; the last two have no step left
            path: [max(steps - 2 * height, 0) for height in np.atleast_1d(BELOW[path])] for path in SHAPES
        }
        for path, counts in whole.items():
            layers = zip(*(x[path] if path in STACKED else [x[path]] for x in (found, start)), counts, strict=True)
            for after, before, made in layers:
                assert np.array_equal(after, before) == (made == 0), (path, steps)
    path = "task_head/kernel"  # which is never frozen
    np.testing.assert_array_equal(found[path], descend(inner, 9)[path])


def test_its_decay_and_its_turns_may_be_traced():
    find = jax.jit(lambda decay, every: descend(Layerwise(SGD(0.1), STACKED, decay=decay, unfreeze_every=every)))
    expected = descend(Layerwise(SGD(0.1), STACKED, decay=0.6, unfreeze_every=1))
    for path, value in find(0.6, 1).items():
        np.testing.assert_allclose(value, expected[path], rtol=1e-5)


@dataclass(frozen=True)
class Thawing(Tiny):
    """Its run has a transformer, of which another layer begins to learn every two steps."""

    def resolved(self, **experiment):
        return super().resolved(model="@gpt", **{"layerwise.unfreeze_every": 2}, **experiment)


def test_a_run_goes_on_to_the_bit_while_layers_thaw(tmp_path):
    of_runs.goes_on_where_it_stopped(Thawing(REGISTRIES["optimizer"].entry("layerwise"), tmp_path))


@pytest.mark.parametrize(
    ("order", "says"),
    [(("blocks",), "no pattern that is found in 'embedding'. Add one"), (("(",), "'\\(' is no regular expression")],
)
def test_an_order_that_cannot_be_is_refused(order, says):
    with pytest.raises(ConfigError, match=says):
        Layerwise(SGD(0.1), STACKED, order=order).transformation(ROLES)


def test_an_optimizer_for_other_losses_is_refused_inside_of_it():
    lines = ["model = @lstm", "loss = @autoregressive", "dataset = @random_tokens", "optimizer = @layerwise",
             "steps = 3", "global_batch_size = 2", "seq_len = 3"]  # fmt: skip
    resolved = resolve([], [*(f"experiment.{line}" for line in lines), "random_tokens.vocab = 7",
                            "layerwise.optimizer = @expectation_maximization"])  # fmt: skip
    with pytest.raises(ConfigError, match="'expectation_maximization' cannot use the gradient of the loss 'autoreg"):
        check_optimizer(resolved.build())
