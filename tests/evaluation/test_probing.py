"""Probing: states that hold a label and states that do not, and the states of each block of a model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest

from lmlab.contracts import LabelledText, TaggedText
from lmlab.errors import ConfigError, NonFiniteError
from lmlab.evaluation.layers import first_blocks
from lmlab.evaluation.local_params import local_params
from lmlab.evaluation.probing import Probing, Reader
from lmlab.nn.states import token_states
from lmlab.registry import REGISTRIES
from lmlab.testing.tiny import Tiny

pytest.importorskip("sklearn")


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Any:
    entry = REGISTRIES["evaluator"].entry("probing")
    return Tiny(entry, tmp_path_factory.mktemp("probing")).program(**{"gpt.layers": 3, "seq_len": 61})


class Words:
    """Sentences of which each word has a tag that its state is to show, or one that it does not."""

    example = TaggedText

    def __init__(self, told: bool) -> None:
        self._told = told

    def split(self, name: str) -> list[TaggedText]:
        random = np.random.default_rng([self._told, len(name)])
        found = []
        for _ in range(240):
            words = tuple(f"{''.join(random.choice(list('abcdefg'), 4))}{random.choice(list('xyz'))}" for _ in range(5))
            tags = tuple(word[-1] if self._told else str(random.choice(list("xyz"))) for word in words)
            found.append(TaggedText(words, tags))
        return found


def test_a_label_that_states_hold_is_found_and_a_random_one_is_not(
    program: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def planted(self: Reader, params: Any, blocks: int, texts: Any) -> np.ndarray:
        """The last letter of each word in one coordinate of three, among noise; block 2 has noise only."""
        random = np.random.default_rng(len(texts.asked))
        noise = random.normal(size=(len(texts.asked), 7)) * 0.2
        if blocks != 2:
            noise[np.arange(len(noise)), ["xyz".index(one.kind[-1]) for one in texts.asked]] += 3
        return noise

    monkeypatch.setattr(Reader, "states", planted)
    state = program.init_state()
    found = Probing(dataset=Words(True), train_examples=None).bind(program)(state)
    assert found["valid/probing/layer-1/accuracy"] == 1 == found["valid/probing/layer-3/accuracy"]
    assert found["valid/probing/layer-2/accuracy"] < 0.45 and found["valid/probing/asked"] == 1200
    assert found["valid/probing/layer-1/control"] < 0.5, "which label a kind of word has is not in the states"
    assert found["valid/probing/layer-1/selectivity"] == 1 - found["valid/probing/layer-1/control"]
    random = Probing(dataset=Words(False), train_examples=None, layers=(1,)).bind(program)(state)
    assert abs(random["valid/probing/layer-1/accuracy"] - 1 / 3) < 0.07
    assert abs(random["valid/probing/majority"] - 1 / 3) < 0.07


def test_states_are_those_of_the_words_last_tokens_after_each_block(program: Any) -> None:
    params = local_params(program, program.init_state())
    examples = [
        TaggedText(("abc", "de"), ("X", "Y")),
        TaggedText(("f" * 70, "g"), ("X", "Y")),
        TaggedText(("h",), ("X",)),
    ]
    reader = Reader(program)
    texts = reader.asked(examples)
    # "abc" are bytes 1-3 behind the id that begins a row, " de" the next three; the long word has no room.
    assert [(one.row, one.place, one.label, one.kind) for one in texts.asked] == [
        (0, 3, "X", "abc"), (0, 6, "Y", "de"), (2, 1, "X", "h"),
    ]  # fmt: skip
    deepest = reader.states(params, 3, texts)
    whole = jax.jit(lambda ids: token_states(program.model.bind(params), ids))
    for one, state in zip(texts.asked, deepest, strict=True):
        np.testing.assert_allclose(state, whole(texts.rows[one.row][None])[0, one.place], atol=1e-5)
    with pytest.raises(NonFiniteError, match="the model's states are not finite"):
        reader.states({path: value * np.nan for path, value in params.items()}, 3, texts)


def test_a_model_s_first_blocks_are_a_shallower_model(program: Any, tmp_path: Path) -> None:
    entry = REGISTRIES["evaluator"].entry("probing")
    shallow = Tiny(entry, tmp_path).program(**{"gpt.layers": 2, "seq_len": 61})
    params = local_params(program, program.init_state())
    model, kept = first_blocks(program.model, params, 2)
    assert {path: value.shape for path, value in kept.items()} == {
        path: shape.shape for path, shape in shallow.model.shapes.items()
    }
    ids = np.random.default_rng(1).integers(0, 200, (2, 11))
    found, wanted = (jax.jit(lambda ids, m=m: m.bind(kept).hidden(ids)[0])(ids) for m in (model, shallow.model))
    np.testing.assert_allclose(found, wanted, atol=1e-6)


def test_texts_with_labels_are_read_whole_and_what_cannot_be_is_refused(program: Any) -> None:
    class Texts:
        example = LabelledText

        def split(self, name: str) -> list[LabelledText]:
            return [LabelledText(f"word{n % 5} {'good' if n % 2 else 'bad'}", "+" if n % 2 else "-") for n in range(40)]

    found = Probing(dataset=Texts()).bind(program)(program.init_state())
    assert found["valid/probing/asked"] == 40 and found["valid/probing/majority"] == 0.5
    assert found["valid/probing/layer-3/accuracy"] == 1, "the last letters differ"
    with pytest.raises(ConfigError, match=r"layers = \[4\]: the model has 3 blocks"):
        Probing(layers=(4,)).bind(program)
    texts = REGISTRIES["dataset"].entry("text_files").component(train=("nowhere.txt",))
    with pytest.raises(ConfigError, match="the dataset 'text_files' yields Text"):
        Probing(dataset=texts).bind(program)
