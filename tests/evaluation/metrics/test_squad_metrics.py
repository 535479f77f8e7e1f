"""SQuAD's exact match and F1 against numbers worked out by hand from the scripts' definitions."""

import pytest

from lmlab.evaluation.metrics.answers import Squad, normalized, word_f1


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        ("The  Beatles' (2nd) album", "beatles 2nd album"),
        ("a.m.", "am"),  # punctuation goes before articles are looked for
        ("An apple a day", "apple day"),
        ("theatre and another", "theatre and another"),  # articles are whole words
        ("«naïve»\tÉté\n", "«naïve» été"),  # only ASCII punctuation goes
        ("the", ""),
    ],
)
def test_answers_are_normalised_as_the_script_does(answer, expected):
    assert normalized(answer) == expected


def test_f1_counts_words_as_often_as_they_occur():
    # precision 2/3 ("to" once too often), recall 2/4
    assert word_f1("to to go", "go to be free", False) == pytest.approx(2 * (2 / 3) * (2 / 4) / (2 / 3 + 2 / 4))
    assert word_f1("cat", "dog", False) == 0


def test_the_best_answer_counts():
    totals = Squad()
    totals.add(["the Denver Broncos", "in 1066"], [["Denver Broncos", "Broncos"], ["1066", "the year 1066"]])
    assert totals.result() == pytest.approx({"exact_match/squad-1.1": 50, "f1/squad-1.1": 100 * (1 + 2 / 3) / 2})


def test_without_an_answer_only_the_empty_text_is_right():
    totals = Squad("2.0")
    totals.add(["", "Paris", "", "Paris"], [[], [], ["Rome"], ["in Paris"]])
    assert totals.result() == pytest.approx(
        {
            "exact_match/squad-2.0": 25,
            "f1/squad-2.0": 100 * (1 + 0 + 0 + 2 / 3) / 4,
            "exact_match/squad-2.0-no-answer": 50,
            "f1/squad-2.0-no-answer": 50,
            "exact_match/squad-2.0-has-answer": 0,
            "f1/squad-2.0-has-answer": 100 / 3,
        }
    )


def test_two_texts_without_words_agree_in_version_2_only():
    for version, f1 in (("1.1", 0), ("2.0", 100)):
        totals = Squad(version)
        totals.add(["the"], [["..."]])
        assert totals.result()[f"exact_match/squad-{version}"] == 100
        assert totals.result()[f"f1/squad-{version}"] == f1


def test_a_question_without_answers_is_refused_in_version_1():
    with pytest.raises(ValueError, match="at least one"):
        Squad().add(["x"], [[]])
    with pytest.raises(ValueError, match="sequence of accepted answers"):
        Squad("2.0").add(["x"], ["x"])
