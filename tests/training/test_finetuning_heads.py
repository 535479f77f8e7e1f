"""A pretrained encoder under the heads of spans and of pairs: loaded whole, the head alone new, and both learn."""

import numpy as np
import pytest

from lmlab.registry import find
from lmlab.testing.tiny import Tiny
from lmlab.training.loop import train

SMALL = {
    "model": "@bert", "tokenizer": "@bytes", "steps": 1, "global_batch_size": 4, "seq_len": 47, "mesh.data": 1,
    "adamw.learning_rate": 0.01, "bytes.specials": "['mask']",
}  # fmt: skip
TUNED = {"init_from": "@init_from", "init_from.allow_missing": "['^task_head/']"}
HEADS = {"span": {}, "classification": {"table_labelled.second": "target"}}


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    """A run of masked tokens, the loss of a BERT that `lmlab import` makes a run of."""
    folder = tmp_path_factory.mktemp("heads")
    return train(Tiny(find("mlm"), folder).resolved(dataset="@text_files", seed=4, **SMALL), folder / "base")


@pytest.mark.parametrize("loss", HEADS)
def test_the_encoder_is_loaded_and_the_head_is_new(loss, base, tmp_path, capfd):
    settings = {**SMALL, **TUNED, **HEADS[loss], "init_from.run": str(base.folder)}
    run = train(Tiny(find(loss), tmp_path).resolved(**settings), tmp_path / "tuned")
    said = capfd.readouterr().err
    before, after = base.state.params, run.state.params
    new = set(after) - set(before)
    assert new == {"task_head/logits/bias", "task_head/logits/kernel"}
    assert f"{len(before)} loaded, 2 new, 0 ignored" in said
    moved = max(float(np.abs(np.asarray(after[path]) - np.asarray(before[path])).max()) for path in before)
    assert 0 < moved < 0.02  # one step of Adam away from where the base ended: it began there
