"""Answers as texts: against looking at every stretch of every context by itself, in float64."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest

from lmlab.contracts import Question
from lmlab.errors import ConfigError
from lmlab.evaluation.answer_report import AnswerReport
from lmlab.evaluation.local_params import local_params
from lmlab.evaluation.metrics.answers import Squad
from lmlab.registry import REGISTRIES
from lmlab.testing.tiny import Tiny


class Questions:
    """Questions, of which some have several answers and some may have none, or are longer than a row."""

    example = Question

    def __init__(self, impossible: bool) -> None:
        words = ["The", "quick", "foxes,", "a", "lazy", "dog", "naïve", "jump", "Over"]
        self._found = []
        for n in range(19):
            context = " ".join(words[(n * k) % 9] for k in range(1, 5 + n % 7))
            answers = () if impossible and n % 3 == 0 else (context[:3], context[4:9])
            self._found.append(Question("Who?" * (1 + n % 2), context, answers, tuple(0 for _ in answers)))

    def split(self, name: str) -> list[Question]:
        return self._found


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Any:
    entry = REGISTRIES["evaluator"].entry("answer_report")
    return Tiny(entry, tmp_path_factory.mktemp("answers")).program(model="@gpt", seq_len=37)


@pytest.fixture(scope="module")
def state(program: Any) -> Any:
    fresh = program.init_state()
    return fresh._replace(params={path: value * 7 for path, value in fresh.params.items()})  # of which some is sure


def best_answers(program: Any, state: Any, asked: list[Question], longest: int, none: bool) -> list[str]:
    """The best stretch of each context of single bytes, and of nothing where that is better."""
    end, encode, found = program.tokenizer.end_of_text, program.tokenizer.encode, []
    params = local_params(program, state)
    score = jax.jit(lambda batch: program.loss.scores(program.model.bind(params), batch))
    for one in asked:
        question, context = encode(one.question), encode(one.context)
        context = context[: 37 - 3 - len(question)]
        begin, count = len(question) + 2, len(question) + len(context) + 3
        row = np.zeros((3, 1, 37), np.int32)
        row[0, 0, :count] = [end, *question, end, *context, end]  # bytes have no other marks
        row[1, 0, :count] = 1
        row[2, 0, begin:count] = 1
        batch = dict(zip(("tokens", "segment_ids", "type_ids"), row, strict=True))
        starts, ends = (np.float64(scores[0]) for scores in score(batch))
        best, answer = starts[0] + ends[0] if none else -np.inf, (0, 0)
        for i in range(len(context)):
            for j in range(i, min(i + longest, len(context))):
                if starts[begin + i] + ends[begin + j] > best:
                    best, answer = starts[begin + i] + ends[begin + j], (i, j + 1)
        letters = [place for place, letter in enumerate(one.context) for _ in letter.encode()]
        found.append(one.context[letters[answer[0]] : letters[answer[1] - 1] + 1].strip() if answer[1] else "")
    return found


def words(text: str) -> list[str]:
    """As SQuAD's scripts see them, of these texts."""
    kept = "".join(letter for letter in text.lower() if letter.isalpha() or letter == " ")
    return [word for word in kept.split() if word not in ("a", "an", "the")]


@pytest.mark.parametrize(("impossible", "longest"), [(False, 30), (False, 2), (True, 30)])
def test_answers_are_the_best_stretches_of_the_contexts(
    program: Any, state: Any, impossible: bool, longest: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    written: list[str] = []
    real = Squad.add
    monkeypatch.setattr(
        Squad, "add", lambda self, texts, accepted: written.extend(texts) or real(self, texts, accepted)
    )
    data = Questions(impossible)
    found = AnswerReport(longest=longest, dataset=data).bind(program)(state)
    asked = data.split("valid")
    wanted = best_answers(program, state, asked, longest, impossible)
    assert written == wanted and len(set(wanted)) > 3
    right = []
    for text, one in zip(wanted, asked, strict=True):
        right.append(any(words(text) == words(answer) for answer in one.answers or ("",)))
    version = "2.0" if impossible else "1.1"
    assert found[f"valid/exact_match/squad-{version}"] == pytest.approx(100 * np.mean(right))
    assert found["valid/questions"] == 19 and found["valid/contexts_cut"] == sum(
        len(one.question.encode()) + len(one.context.encode()) > 34 for one in asked
    )
    assert ("valid/f1/squad-2.0-no-answer" in found) == impossible


def test_choices_and_other_data_are_refused(program: Any, tmp_path: Path) -> None:
    class Choices(Questions):
        def split(self, name: str) -> list[Question]:
            return [Question("Who?", "a b", ("a",), choices=("a", "b"))]

    with pytest.raises(ConfigError, match="a part of the text, not choices"):
        AnswerReport(dataset=Choices(False)).bind(program)
    labels = Tiny(REGISTRIES["loss"].entry("classification"), tmp_path).program()
    with pytest.raises(ConfigError, match="needs a loss that reads a SpanBatch"):
        AnswerReport().bind(labels)
