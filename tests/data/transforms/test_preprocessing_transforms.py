"""Preprocessing: case, Unicode, stop words and de-tokenising, in every kind of example."""

import unicodedata

import pytest

from lmlab.data.transforms.detokenize import Detokenize
from lmlab.data.transforms.fields import repaired
from lmlab.data.transforms.preprocessing import Lowercase, StopWords, UnicodeNormalize
from lmlab.errors import ConfigError, DataError
from lmlab.examples import Document, LabelledText, Question, TaggedText, Text, TextPair, Tokens


def test_lower_case_reaches_every_text_of_every_kind():
    lower = Lowercase()
    cases = {
        Text("Ab É"): Text("ab é"),
        Document(("Ab", "Cd")): Document(("ab", "cd")),
        TextPair("Ab", "Cd"): TextPair("ab", "cd"),
        LabelledText("Ab", "LABEL", "Cd"): LabelledText("ab", "LABEL", "cd"),
        TaggedText(("To", "Rome"), ("O", "B-CITY"), "GO"): TaggedText(("to", "rome"), ("O", "B-CITY"), "GO"),
        Question("Who?", "It is Ann", ("Ann",), (6,)): Question("who?", "it is ann", ("ann",), (6,)),
    }
    for example, expected in cases.items():
        assert lower(example, None) == expected
    assert Lowercase(targets=False)(TextPair("Ab", "Cd"), None) == TextPair("ab", "Cd")


def test_an_answer_that_moves_in_its_context_is_refused():
    question = Question("?", "İİ Ann", ("Ann",), (3,), source="q7")  # İ in lower case is two characters
    with pytest.raises(DataError, match=r"q7: after 'lowercase' the answer 'ann'"):
        Lowercase()(question, None)


def test_ids_are_refused():
    with pytest.raises(ConfigError, match="'lowercase' changes text, and Tokens holds none"):
        Lowercase()(Tokens([1, 2]), None)


@pytest.mark.parametrize("form", ["NFC", "NFD", "NFKC", "NFKD"])
def test_unicode_is_normalised_to_the_form(form):
    text = "ﬁancé e\u0301 Å"
    assert UnicodeNormalize(form)(Text(text), None).text == unicodedata.normalize(form, text)


def test_a_tagged_word_stays_one_word():
    with pytest.raises(DataError, match="not one word"):
        UnicodeNormalize("NFKC")(TaggedText(("a\u00a0b",), ("O",)), None)  # a no-break space becomes a space


def test_stop_words_go_and_an_example_of_nothing_else_is_dropped():
    stop = StopWords()
    assert stop(Text("The cat  sat\non THE mat"), None) == Text("cat  sat mat")
    assert stop(Text("of the"), None) is None
    tagged = TaggedText(("fly", "to", "the", "Hague"), ("O", "O", "B-city", "I-city"))
    assert stop(tagged, None) == TaggedText(("fly", "Hague"), ("O", "B-city"))


def test_stop_words_come_from_a_file_too(tmp_path):
    (tmp_path / "stop.txt").write_text("Cat\n\nmat\n")
    assert StopWords(str(tmp_path / "stop.txt"))(Text("The cat sat"), None) == Text("The sat")
    with pytest.raises(DataError, match="Name a file, or 'english'"):
        StopWords(str(tmp_path / "none.txt"))(Text("a"), None)


@pytest.mark.parametrize(
    ("tags", "places", "expected"),
    [
        ("B-x I-x I-x O", (1, 2, 3), "B-x I-x O"),
        ("B-x I-x I-x O", (0, 2, 3), "B-x I-x O"),
        ("B-x I-x B-x I-x", (0, 3), "B-x B-x"),
        ("I-x I-x O I-y", (1, 2, 3), "I-x O I-y"),  # spans that never had a B do not get one
        ("B-x I-y I-y", (0, 2), "B-x I-y"),
        ("DT NN IN", (0, 2), "DT IN"),
    ],
)
def test_a_span_begins_with_what_is_left_of_it(tags, places, expected):
    assert repaired(tags.split(), places) == tuple(expected.split())


@pytest.mark.parametrize(
    ("convention", "tokens", "text"),
    [
        ("brown", "`` Go ( now ) ! ! '' he said , slowly .", '"Go (now)!" he said, slowly.'),
        ("brown", "Is it ? ?\nIt is ; ; or not .", "Is it?\nIt is; or not."),
        ("brown", "Atlanta's $4.50 -- a lot", "Atlanta's $4.50 -- a lot"),
        (
            "ptb",
            "They do n't pay $ 5 -LRB- 3 % -RRB- for Ann 's `` 1\\/2 '' .",
            "They don't pay $5 (3%) for Ann's \"1/2\".",
        ),
    ],
)
def test_text_is_put_together_by_the_corpus_convention(convention, tokens, text):
    assert Detokenize(convention)(Text(tokens), None) == Text(text)
