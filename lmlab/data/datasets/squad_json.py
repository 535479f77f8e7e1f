"""Questions about a text in the JSON format of SQuAD."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, ClassVar

from lmlab.contracts import Question
from lmlab.data.file_splits import FileSplits
from lmlab.data.files import LeftOut, Malformed, contents, decoded, text_of
from lmlab.errors import DataError
from lmlab.registry import datasets


@datasets.register("squad_json")
@dataclass(frozen=True)
class SquadJson(FileSplits):
    """Questions whose answers are stretches of a text: SQuAD 1.1 (arXiv:1606.05250) and 2.0 (arXiv:1806.03822).

    A question that `is_impossible` (2.0) has no answers; its `plausible_answers` are none. An example's source is the
    question's id, by which predictions are scored. Splits without files of their own are taken out of `train` by the
    md5 of the context, so that the questions about one text are on one side.

    Malformed is a question without a text or an id, with an answer that does not stand at its `answer_start` in the
    context (counted in characters), or with no answer and not said to be impossible.

    Args:
      train: paths or globs (`**` is any depth), relative to the working directory; `.gz`, `.bz2` and `.xz` too.
      valid: the same for the validation split (none: `valid_share` of train).
      test: the same for the test split (none: `test_share` of train).
      valid_share: part of the contexts that becomes the validation split.
      test_share: part of the contexts that becomes the test split.
      malformed: `refuse` names the first malformed question; `drop` leaves such questions out and counts them.
    """

    example: ClassVar[type] = Question
    name: ClassVar[str] = "squad_json"
    TINY: ClassVar[str] = """
    squad_json.train = '{folder}/questions.json'
    squad_json.valid_share = 0.2
    squad_json.test_share = 0.2
    experiment.loss = @span
    """

    def _examples_of(self, file: str, left_out: LeftOut) -> Iterator[Question]:
        for where, paragraph in _paragraphs(file):
            for number, found in enumerate(_list(where, paragraph, "qas")):
                name = found.get("id", number) if isinstance(found, dict) else number
                with left_out.row(f"{where}, question {name}"):
                    yield _question(found, paragraph.get("context"))


def _paragraphs(file: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """Every paragraph of every article, with where it stands; DataError where the file is not of this format."""
    try:
        whole = json.loads(decoded(file, contents(file)))
    except json.JSONDecodeError as error:
        raise DataError(f"{file}:{error.lineno}: not JSON: {error.msg} at character {error.colno}.") from None
    for a, article in enumerate(_list(file, whole, "data")):
        for p, paragraph in enumerate(_list(f"{file}: article {a}", article, "paragraphs")):
            yield f"{file}: article {a}, paragraph {p}", paragraph


def _list(where: str, outer: Any, name: str) -> list[Any]:
    """The list that a member of an object holds."""
    found = outer.get(name) if isinstance(outer, dict) else None
    if not isinstance(found, list):
        raise DataError(f"{where}: no list '{name}' in it: this is not the format of SQuAD.")
    return found


def _question(found: Any, context: Any) -> Question:
    if not isinstance(found, dict):
        raise Malformed("no object.")
    context = text_of(context, "context")
    answers = [] if found.get("is_impossible") else _answers(found, context)
    return Question(
        question=text_of(found.get("question"), "question"),
        context=context,
        answers=tuple(text for text, _ in answers),
        starts=tuple(start for _, start in answers),
        source=text_of(found.get("id"), "id"),
    )


def _answers(found: dict[str, Any], context: str) -> list[tuple[str, int]]:
    """Text and first character of every answer, as often as the file has it: each is of another annotator."""
    answers = found.get("answers")
    if not isinstance(answers, list) or not answers:
        raise Malformed("no answers, and is_impossible is not true.")
    pairs = []
    for answer in answers:
        if not isinstance(answer, dict):
            raise Malformed("an answer is no object.")
        text, start = text_of(answer.get("text"), "answer"), answer.get("answer_start")
        if not isinstance(start, int) or start < 0 or not context.startswith(text, start):
            there = context[start : start + len(text)] if isinstance(start, int) and start >= 0 else ""
            raise Malformed(f"the answer {text!r} does not stand at {start}, where the context has {there!r}.")
        pairs.append((text, start))
    return pairs
