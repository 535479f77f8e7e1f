"""Several datasets side by side: a batch of each in every step, for losses that are told of their own data."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lmlab.batches import LabelBatch, TokenBatch, task_batch
from lmlab.config import build, resolve
from lmlab.contracts import Dataset
from lmlab.data import JointData, open_data
from lmlab.data.datasets.random_tokens import RandomTokens
from lmlab.data.datasets.table_labelled import TableLabelled
from lmlab.data.datasets.tasks import Tasks
from lmlab.data.datasets.text_files import TextFiles
from lmlab.data.features.rows import Batch
from lmlab.data.tokenizers.plain import Bytes
from lmlab.errors import ConfigError
from lmlab.nn.randomness import keys_for
from lmlab.optim.optimizers import SGD
from lmlab.testing.tiny import BASE, small_files, with_parts
from lmlab.training.program import Program
from lmlab.training.randomness import STEP, row_keys, stream_key
from lmlab.training.step import make_init, make_step

B, T = 16, 7
READS = (LabelBatch, TokenBatch)
TINY = {
    "experiment.dataset": "@tasks",
    "experiment.tokenizer": "@bytes",
    "experiment.model": "@elman",
    "experiment.loss": "@weighted",
    "tasks.datasets": "[@table_labelled, @text_files, @other/table_labelled]",
    "weighted.losses": "[@classification, @autoregressive, @classification]",
    "weighted.weights": "[0.7, 0.3, 0.5]",
    "other/table_labelled.label": "'text'",
    "experiment.unseen_label": "'keep'",
    "bytes.specials": "['mask', 'separator', 'classify']",
    "mesh.data": "1",
}


def opened(datasets: tuple[Dataset, ...] | None = None, reads: Any = READS, **changes: Any) -> Any:
    setting = {"seq_len": T, "global_batch_size": B, "seed": 3, "overlong": "cut"}
    tokenizer = Bytes(256, ("mask", "separator", "classify"))
    return open_data(Tasks(datasets or (labelled(), texts())), tokenizer, reads=reads, **{**setting, **changes})


def labelled() -> TableLabelled:
    return TableLabelled(train=f"{small_files()}/rows.jsonl", valid_share=0.2, test_share=0.2)


def texts() -> TextFiles:
    return TextFiles(train=f"{small_files()}/text/*.txt", valid_share=0.2, test_share=0.2)


def alone(dataset: Dataset, reads: type) -> Any:
    return open_data(
        dataset, Bytes(256, ("mask", "separator", "classify")), reads=reads, seq_len=T, global_batch_size=B, seed=3,
        overlong="cut",
    )  # fmt: skip


def program(**more: str) -> Program:
    chosen = {**BASE, **TINY, **{key.replace("__", "."): text for key, text in more.items()}}
    bindings = with_parts({key: text for key, text in chosen.items() if text}, ("tasks", "weighted"))
    return Program(resolve([], ["\n".join(f"{key} = {value}" for key, value in bindings.items())]))


def assert_same(found: Any, expected: Batch) -> None:
    assert set(found) == set(expected)
    for name, values in expected.items():
        np.testing.assert_array_equal(found[name], values)


def test_a_batch_holds_the_batch_of_each_dataset_for_whoever_asks_for_which_rows() -> None:
    data, each = opened(), [alone(labelled(), LabelBatch), alone(texts(), TokenBatch)]
    assert isinstance(data, JointData)
    for k in (5, 0, 10**6):
        for rows in (None, range(4, 8)):
            batch = data.train.batch(k, rows)
            for place, one in enumerate(each):
                assert_same(task_batch(batch, place), one.train.batch(k, rows))
    assert data.train.tokens_per_step == 2 * B * T
    assert data.train.rows_of(1).tolist() == [
        *each[0].train.rows_of(1), *(each[0].train.rows_per_epoch + each[1].train.rows_of(1)),
    ]  # fmt: skip


def test_an_evaluation_reads_every_dataset_once_and_nothing_behind_its_end() -> None:
    data, each = opened().split("valid"), [alone(labelled(), LabelBatch), alone(texts(), TokenBatch)]
    splits = [one.split("valid") for one in each]
    assert len(splits[0]) < len(splits[1]) == len(data)
    for i in range(len(data)):
        batch = data.batch(i)
        for place, split in enumerate(splits):
            if i < len(split):
                assert_same(task_batch(batch, place), split.batch(i))
            else:
                assert not any(values.any() for values in task_batch(batch, place).values())


def test_a_corpus_that_stands_twice_gives_both_losses_the_same_examples() -> None:
    batch = opened((labelled(), labelled()), LabelBatch).train.batch(3)
    assert_same(task_batch(batch, 0), dict(task_batch(batch, 1)))


def test_another_order_of_the_datasets_is_another_pipeline() -> None:
    one = opened().train.fingerprint()
    assert one == opened().train.fingerprint()
    assert one != opened((texts(), labelled()), READS[::-1]).train.fingerprint()


def test_the_gradient_is_the_weighted_sum_of_each_loss_on_its_own_dataset() -> None:
    made = program()
    recipe = dataclasses.replace(made.recipe, optimizer=SGD(1.0), clip_norm=None)
    state = jax.jit(make_init(recipe))(made.key)
    batches = [jax.tree.map(jnp.asarray, task.train.batch(0)) for task in made.data.tasks]  # type: ignore[union-attr]
    keys = row_keys(stream_key(recipe.seed, STEP, 0), jnp.arange(B))
    names = ("classification_0", "autoregressive", "classification_2")

    def minimised(params: Any) -> Any:
        total = jnp.zeros(())
        for place, (part, weight) in enumerate(zip(made.loss.losses, (0.7, 0.3, 0.5), strict=True)):
            model = recipe.model.bind(params)
            if place != 1:
                model.task_head = model.task_head[names[place]]
            own = keys if place == 0 else keys_for(keys, f"weighted/{place}")
            output = part(model, batches[place], own, jnp.int32(0))
            total += weight * output.total / output.weight
        return total

    gradient = jax.jit(jax.grad(minimised))(state.params)
    whole = jax.tree.map(jnp.asarray, made.data.train.batch(0))
    after, _ = jax.jit(make_step(recipe, microbatches=2))(state, whole)
    for path, leaf in gradient.items():
        np.testing.assert_allclose(state.params[path] - after.params[path], leaf, atol=2e-6, err_msg=path)
        assert np.any(leaf), path


def test_each_loss_is_told_of_the_labels_of_its_own_dataset() -> None:
    made = program()
    classes = [len(task.labels) for task in made.data.tasks]  # type: ignore[union-attr]
    heads = {path: shape.shape for path, shape in made.model.shapes.items() if path.startswith("task_head/")}
    assert classes[0] == 2 and classes[2] > 2 and classes[1] == 0
    for name, count in (("classification_0", 2), ("classification_2", classes[2])):
        assert any(f"/{name}/" in path and shape[-1] == count for path, shape in heads.items()), heads


def test_an_evaluation_has_the_mean_of_each_loss_on_its_dataset_and_the_weighted_sum() -> None:
    other = {"other/table_labelled.label": "", "other/table_labelled.text": "'target'"}  # all classes are known
    made = program(experiment__evaluators="[@held_out]", held_out__batches="None", **other)
    state = made.init_state()
    found = build(made.experiment.evaluators[0]).bind(made)(state)
    expected, whole = {}, 0.0
    for place, (name, part) in enumerate(made.loss.named.items()):
        split, total, weight = made.data.tasks[place].split("valid"), 0.0, 0.0  # type: ignore[union-attr]
        model = made.model.bind(state.params)
        if name in model.task_head:
            model.task_head = model.task_head[name]
        for i in range(len(split)):
            output = part(model, jax.tree.map(jnp.asarray, split.batch(i)), None, jnp.int32(0))
            total, weight = total + float(output.total), weight + float(output.weight)
        expected[f"valid/{name}/loss"] = total / weight
        whole += made.loss.weights[place] * total / weight
    for name, value in {**expected, "valid/loss": whole}.items():
        np.testing.assert_allclose(found[name], value, rtol=1e-5, err_msg=name)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"weighted__losses": "[@classification, @autoregressive]", "weighted__weights": "[1.0, 1.0]"},
            r"'tasks' needs a loss for each of its 3 datasets, and the loss 'weighted' is the sum of 2\. Set",
        ),
        (
            {"experiment__loss": "@autoregressive", "weighted__losses": "", "weighted__weights": ""},
            r"'tasks' needs .* the loss 'autoregressive' is one\. Set",
        ),
        (
            {"weighted__losses": "[@autoregressive, @autoregressive, @classification]"},
            r"the loss 'autoregressive' cannot read the dataset 'table_labelled': it yields LabelledText",
        ),
        ({"experiment__buckets": "[5]"}, r"experiment\.buckets is for one dataset; 'tasks' has 3\. Unset it"),
        ({"experiment__packing": "'contiguous'"}, r"experiment\.packing = 'contiguous' is for one dataset"),
    ],
)
def test_what_does_not_go_together_is_refused_in_one_line(changes: dict[str, str], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        program(**changes)


def test_datasets_whose_ids_do_not_mean_the_same_are_refused() -> None:
    ids = Tasks((RandomTokens(vocab=7, tokens=99), RandomTokens(vocab=11, tokens=99)))
    with pytest.raises(ConfigError, match=r"vocabularies differ \(random_tokens 7, random_tokens 11 ids\)"):
        open_data(ids, None, seq_len=T, global_batch_size=B)
    with pytest.raises(ConfigError, match=r"tasks\.datasets is empty"):
        Tasks(())
    with pytest.raises(ConfigError, match="'tasks' stands in itself"):
        Tasks((ids,))


def test_an_evaluator_of_one_dataset_says_which_one_measures_several() -> None:
    made = program(experiment__evaluators="[@perplexity]")
    with pytest.raises(ConfigError, match=r"'tasks' stands for 3.*@held_out"):
        build(made.experiment.evaluators[0]).bind(made)
