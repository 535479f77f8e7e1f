"""Multiple choice questions in files: what is read, and what is refused with its place."""

import json

import pytest

from lmlab.data.datasets.choices_jsonl import ChoicesJsonl
from lmlab.errors import DataError

GOOD = {"context": "The fox runs.", "question": "The ___ runs.", "choices": ["dog", "fox"], "answer": "fox"}


def read(path, rows, **settings):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return ChoicesJsonl(str(path), valid_share=0.0, test_share=0.0, **settings)


def test_a_line_is_a_question_with_its_choices(tmp_path):
    (example,) = read(tmp_path / "q.jsonl", [GOOD]).split("train")
    assert (example.question, example.context) == ("The ___ runs.", "The fox runs.")
    assert (example.choices, example.answers, example.starts) == (("dog", "fox"), ("fox",), ())
    assert example.source.endswith("q.jsonl:1")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"answer": "cat"}, "'cat' is none of the choices 'dog', 'fox'"),
        ({"choices": ["fox"]}, "at least two different"),
        ({"choices": ["fox", "fox"]}, "at least two different"),
        ({"question": None}, "question"),
    ],
)
def test_what_is_malformed_is_refused_with_its_place_or_left_out(tmp_path, change, message):
    rows = [GOOD, {**GOOD, **change}]
    with pytest.raises(DataError, match=rf"q\.jsonl:2.*{message}"):
        read(tmp_path / "q.jsonl", rows).split("train")
    assert len(read(tmp_path / "q.jsonl", rows, malformed="drop").split("train")) == 1
