"""The models under experiments/models have as many parameters as they say, found without memory for any."""

from __future__ import annotations

import re
from pathlib import Path

import jax.numpy as jnp
import pytest

from lmlab.config import build, resolve
from lmlab.nn.functional import ModelDef

FOLDER = Path(__file__).parents[2] / "experiments" / "models"
LINE = re.compile(r"# Parameters: ([\d,]+)(?: without (\w+/))? \(vocabulary ([\d,]+), experiment.seq_len ([\d,]+)\)")
KNOWN = {
    "gpt2_small": 124_439_808,
    "gpt2_medium": 354_823_168,
    "gpt2_large": 774_030_080,
    "gpt2_xl": 1_557_611_200,
    "nanogpt_char": 10_745_088,
    "bert_base": 109_482_240,
    "bert_large": 335_141_888,
    "llama2_7b": 6_738_415_616,
    "tinyllama": 1_100_048_384,
    "mistral_7b": 7_241_732_096,
    "mixtral_8x7b": 46_702_792_704,
    "t5_small": 60_506_624,
    "t5_base": 222_903_552,
}
"""The counts that the original models have."""


def number(text: str) -> int:
    return int(text.replace(",", ""))


def declared() -> dict[str, tuple[Path, tuple[str, ...]]]:
    """The presets that declare a number, by the name of their file."""
    found = {file.stem: (file, LINE.search(file.read_text())) for file in FOLDER.glob("*.gin")}
    return {name: (file, match.groups()) for name, (file, match) in found.items() if match}


def test_every_known_model_declares_its_number() -> None:
    stated = {name: number(groups[0]) for name, (_, groups) in declared().items()}
    assert {name: stated.get(name) for name in KNOWN} == KNOWN


@pytest.mark.parametrize("name", sorted(declared()))
def test_a_preset_has_as_many_parameters_as_it_says(name: str) -> None:
    file, (count, without, vocab, seq_len) = declared()[name]
    spec = resolve(file, parts=["model"]).spec.kwargs["model"]
    lengths = {"seq_len": number(seq_len), "source_len": number(seq_len)}
    model = ModelDef.of(
        lambda rngs: build(spec, vocab=number(vocab), **lengths, dtype=jnp.dtype("bfloat16"), rngs=rngs)
    )
    left_out = sum(shape.size for path, shape in model.shapes.items() if without and path.startswith(without))
    assert model.size - left_out == number(count)
