"""SQuAD's JSON: answers at their places, questions without one, ids as sources."""

import gzip
import json
from pathlib import Path

import pytest

from lmlab.contracts import Question
from lmlab.data.datasets.squad_json import SquadJson
from lmlab.errors import DataError

WHOLE = {"valid_share": 0.0, "test_share": 0.0}
CONTEXT = "Déjà vu: the Normans 🙂 gave their name to Normandy, a region in France."


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def asked(name="56ddde6b", text="Normandy", start=None, **more):
    answers = [{"text": text, "answer_start": CONTEXT.index("Normandy") if start is None else start}]
    return {"id": name, "question": "Where?", "answers": answers, **more}


def written(*questions, name="dev.json", context=CONTEXT):
    paragraphs = [{"context": context, "qas": list(questions)}]
    data = json.dumps({"version": "v2.0", "data": [{"title": "Normans", "paragraphs": paragraphs}]})
    Path(name).write_bytes(gzip.compress(data.encode()) if name.endswith(".gz") else data.encode())
    return name


def test_answers_stand_at_their_places_counted_in_characters(folder):
    both = asked()
    both["answers"] += [{"text": "France", "answer_start": CONTEXT.index("France")}, both["answers"][0]]
    (found,) = SquadJson(written(both, name="dev.json.gz"), **WHOLE).split("train")
    assert isinstance(found, Question) and found.source == "56ddde6b" and found.context == CONTEXT
    assert found.answers == ("Normandy", "France", "Normandy")
    assert [found.context[s : s + len(a)] for s, a in zip(found.starts, found.answers, strict=True)] == [*found.answers]


def test_a_question_that_is_impossible_has_no_answer_whatever_is_plausible(folder):
    impossible = {"id": "5ad", "question": "Who?", "answers": [], "is_impossible": True}
    impossible["plausible_answers"] = [{"text": "Normans", "answer_start": CONTEXT.index("Normans")}]
    found = SquadJson(written(asked(is_impossible=False), impossible), **WHOLE).split("train")
    assert [(question.answers, question.starts) for question in found][1] == ((), ()) and found[0].answers


@pytest.mark.parametrize(
    ("question", "message"),
    [
        (
            asked("q1", start=3),
            "question q1: the answer 'Normandy' does not stand at 3, where the context has 'à vu: th'",
        ),
        (asked("q1", start=-9), "question q1: the answer 'Normandy' does not stand at -9"),
        (asked("q1", start="9"), "question q1: the answer 'Normandy' does not stand at 9"),
        (asked("q1", text=""), "question q1: no answer."),
        ({**asked("q1"), "answers": []}, "question q1: no answers, and is_impossible is not true."),
        ({**asked("q1"), "question": None}, "question q1: no question."),
        ({**asked("q1"), "id": ""}, "question : no id."),
        ("Where?", "question 1: no object."),
    ],
)
def test_a_malformed_question_is_named_or_dropped_and_counted(folder, question, message):
    file = written(asked("q0"), question)
    with pytest.raises(DataError) as caught:
        SquadJson(file, **WHOLE).split("train")
    assert str(caught.value).startswith(f"dev.json: article 0, paragraph 0, {message}")
    dataset = SquadJson(file, malformed="drop", **WHOLE)
    assert [found.source for found in dataset.split("train")] == ["q0"] and dataset.notes == {"malformed": 1.0}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('{"data": [\n{"paragraphs": }]}', "a.json:2: not JSON"),
        ("[]", "a.json: no list 'data' in it: this is not the format of SQuAD"),
        ('{"data": [{"title": "x"}]}', "a.json: article 0: no list 'paragraphs'"),
        ('{"data": [{"paragraphs": [{"context": "x"}]}]}', "a.json: article 0, paragraph 0: no list 'qas'"),
    ],
)
def test_a_file_of_another_format_is_refused_whatever_is_asked(folder, content, message):
    (folder / "a.json").write_text(content)
    for malformed in ("refuse", "drop"):
        with pytest.raises(DataError) as caught:
            SquadJson("a.json", malformed=malformed, **WHOLE).split("train")
        assert str(caught.value).startswith(message)


def test_the_questions_about_one_text_are_on_one_side(folder):
    paragraphs = []
    for n in range(100):
        context = f"{n} {CONTEXT}"
        questions = [asked(f"{n}-{i}", start=context.index("Normandy")) for i in range(3)]
        paragraphs.append({"context": context, "qas": questions})
    (folder / "a.json").write_text(json.dumps({"data": [{"paragraphs": paragraphs}]}))
    dataset = SquadJson("a.json", valid_share=0.3, test_share=0.3)
    contexts = [{question.context for question in dataset.split(split)} for split in ("train", "valid", "test")]
    assert sum(map(len, contexts)) == 100 and all(len(found) > 15 for found in contexts)
    assert sum(len(dataset.split(split)) for split in ("train", "valid", "test")) == 300
