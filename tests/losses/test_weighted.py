"""Sums of losses: each part is the mean that it is by itself, with a head and random numbers of its own."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lmlab.config import resolve
from lmlab.errors import ConfigError
from lmlab.nn.randomness import keys_for
from lmlab.optim.optimizers import SGD
from lmlab.testing.of_losses import ragged
from lmlab.testing.tiny import BASE, with_parts
from lmlab.training.program import Program
from lmlab.training.randomness import STEP, row_keys, stream_key
from lmlab.training.step import make_init, make_step

ROWS = 16
OTHER_ROWS = {
    "experiment__dataset": "@text_files",
    "experiment__tokenizer": "@bytes",
    "experiment__model": "@rnn_seq2seq",
    "b/span_corruption__density": "0.3",
}
TEXTS = {"experiment.dataset": "@table_labelled", "experiment.tokenizer": "@bytes"}


def program(losses: str, weights: str = "[0.7, 0.3]", **more: str) -> Program:
    chosen = {"experiment.loss": "@weighted", "experiment.model": "@elman", "mesh.data": "1"}
    own = {"weighted.losses": losses, "weighted.weights": weights}
    bindings = with_parts(
        {**BASE, **chosen, **own, **{key.replace("__", "."): text for key, text in more.items()}}, ("weighted",)
    )
    return Program(resolve([], ["\n".join(f"{key} = {value}" for key, value in bindings.items())]))


def test_the_gradient_is_the_sum_of_the_parts_own_however_the_batch_is_split() -> None:
    """Rows without a weight count for none of the parts; pairs of rows are kept together for one of them."""
    shares = {"classification_0": 0.7, "contrastive": 0.3, "classification_2": 0.4}
    smoothed = {"smoothed/classification__label_smoothing": "0.2", "contrastive__group": "2"}
    made = program("[@classification, @contrastive, @smoothed/classification]", "[0.7, 0.3, 0.4]", **TEXTS, **smoothed)
    assert tuple(made.loss.named) == tuple(shares) and made.loss.together == 2
    recipe = dataclasses.replace(made.recipe, optimizer=SGD(1.0), clip_norm=None)
    batch, state = ragged(made, ROWS), jax.jit(make_init(recipe))(made.key)
    keys = row_keys(stream_key(recipe.seed, STEP, 0), jnp.arange(ROWS))

    def means(params: Any) -> Any:
        found = {}
        for place, (name, part) in enumerate(made.loss.named.items()):
            model = recipe.model.bind(params)
            if name != "contrastive":
                model.task_head = model.task_head[name]
            output = part(model, batch, keys_for(keys, f"weighted/{place}") if place else keys, jnp.int32(0))
            found[name] = output.total / output.weight
        return sum(shares[name] * mean for name, mean in found.items()), found

    gradient, each = jax.jit(jax.grad(means, has_aux=True))(state.params)
    after, metrics = jax.jit(make_step(recipe, microbatches=2))(state, batch)
    for path, leaf in gradient.items():
        size = 1 + np.abs(leaf).max()  # vectors near 0 are told apart with steep gradients
        np.testing.assert_allclose(state.params[path] - after.params[path], leaf, atol=2e-6 * size, err_msg=path)
    for name, mean in each.items():
        np.testing.assert_allclose(np.divide(*metrics[f"{name}/loss"]), mean, rtol=1e-5)
    heads = {path.split("/")[1] for path in gradient if path.startswith("task_head/")}
    assert heads == {"classification_0", "classification_2"}
    assert all(np.any(leaf) for path, leaf in gradient.items() if path.startswith("task_head/"))


def test_one_loss_of_weight_one_is_that_loss() -> None:
    made = program("[@autoregressive]", "[1.0]")
    params, batch = jax.jit(made.model.init)(made.key), ragged(made, ROWS)
    whole, part = (
        jax.jit(lambda params, loss=loss: loss(made.model.bind(params), batch, None, jnp.int32(0)))(params)
        for loss in (made.loss, made.loss.losses[0])
    )
    assert (whole.total, whole.weight) == (part.total, part.weight)
    assert whole.metrics["autoregressive/nats"] == part.metrics["nats"]


@pytest.mark.parametrize(
    ("losses", "more", "message"),
    [
        ("[@autoregressive]", {}, r"names 1 losses, and weighted\.weights has 2 numbers"),
        ("[@autoregressive, @classification]", {}, r"read different batches \('autoregressive' a TokenBatch, 'classi"),
        ("[@autoregressive, @prefix_lm]", {}, r"the loss 'prefix_lm' of 'weighted' needs a PrefixLM; the model"),
        ("[@autoregressive, @distillation]", {}, r"'distillation' has a teacher, .* Set\s+experiment\.loss = @distill"),
        (
            "[@span_corruption, @b/span_corruption]",
            OTHER_ROWS,
            r"the losses of 'weighted' want different rows: \{'density': 0\.15,",
        ),
    ],
)  # fmt: skip
def test_parts_that_do_not_go_together_are_refused_in_one_line(losses: str, more: dict[str, str], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        program(losses, **more)
