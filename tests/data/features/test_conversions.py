"""Every conversion's docstring holds a worked example, and it is true."""

import inspect
import re

import numpy as np
import pytest

from lmlab import examples as kinds
from lmlab.contracts import ChoiceBatch, Question, SpanBatch
from lmlab.data.features import CONVERSIONS, Setting, usual_batch
from lmlab.data.tokenizers.plain import Characters

SPECIALS = ("separator", "classify", "mask", "sentinel_0", "sentinel_1")
TOKENIZER = Characters(specials=SPECIALS).fit(["\n .?", "ABCD", "abcdefg"])
SPELLED = {"_": " ", "/": "\n"}
NAMES = {kind.__name__: kind for kind in kinds.KINDS} | {"ids": lambda *numbers: np.array(numbers)}


def example_of(conversion):
    """The header of the worked example, and what each field is said to be."""
    text = inspect.getdoc(conversion)
    header = re.search(r"^Example: (.*?)(?:\s+#.*)?$", text, re.MULTILINE)
    assert header, f"{conversion.__name__} has no worked example"
    fields = re.findall(r"^  (\w+) += (\[.*\])(?:\s+#.*)?$", text[header.end() :], re.MULTILINE)
    assert fields, f"{conversion.__name__}'s example shows nothing"
    return header[1], dict(fields)


def worked(header):
    def given(*examples, **setting):
        training = setting.pop("training", True)
        return list(examples), Setting(**{"overlong": "cut", **setting}), training

    return eval(f"given({header})", {**NAMES, "given": given})


def number(cell):
    return int(cell) if cell.isdigit() else int(TOKENIZER.encode(SPELLED.get(cell, cell))[0])


def read(text):
    """`[[0 a b], [1 2 3]]` as a list, letters as their ids."""
    cells = re.sub(r"[^\s\[\],]+", lambda cell: str(number(cell[0])), text)
    return eval(re.sub(r"\s+", ", ", re.sub(r",\s*", ", ", cells).replace(", ", " ")).replace("] [", "], ["))


@pytest.mark.parametrize("pair", CONVERSIONS, ids=lambda pair: f"{pair[0].__name__}-{pair[1].__name__}")
def test_the_worked_example_holds(pair):
    conversion = CONVERSIONS[pair]
    header, fields = example_of(conversion)
    examples, setting, training = worked(header)
    if pair[0] not in kinds.IDS:
        setting = Setting(**{**vars(setting), "tokenizer": TOKENIZER})
    rows = conversion(examples, setting, training)
    batch = rows.gather(np.arange(len(rows)))
    required = {name for name in pair[1].__annotations__ if "NotRequired" not in str(pair[1].__annotations__[name])}
    assert required <= set(batch), f"the batch lacks {required - set(batch)}"
    assert {name: batch[name].astype(int).tolist() for name in fields} == {n: read(v) for n, v in fields.items()}
    assert set(fields) >= set(batch) - {"weights", "word_starts", "pair_weights"}


@pytest.mark.parametrize("pair", CONVERSIONS, ids=lambda pair: f"{pair[0].__name__}-{pair[1].__name__}")
def test_rows_are_int32_and_float32_and_fresh_each_time(pair):
    header, _ = example_of(CONVERSIONS[pair])
    examples, setting, training = worked(header)
    if pair[0] not in kinds.IDS:
        setting = Setting(**{**vars(setting), "tokenizer": TOKENIZER})
    rows = CONVERSIONS[pair](examples, setting, training)
    one, other = rows.gather(np.arange(len(rows))), rows.gather(np.arange(len(rows)))
    for name, values in one.items():
        wanted = np.float32 if name.endswith("weights") else np.bool_ if name == "word_starts" else np.int32
        assert values.dtype == wanted, (name, values.dtype)
        assert not np.shares_memory(values, other[name]) and np.array_equal(values, other[name])


def test_a_dataset_is_read_as_it_says_or_as_the_first_batch_that_its_examples_become():
    class Questions:
        example = Question

    class Choices(Questions):
        usual = ChoiceBatch

    assert usual_batch(Questions()) is SpanBatch
    assert usual_batch(Choices()) is ChoiceBatch
