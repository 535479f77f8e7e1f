"""Sentences in columns: CoNLL-2003 and its like, and the layers of CoNLL-2012 against tags written by hand."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lmlab.contracts import TaggedText
from lmlab.data.datasets.conll import Conll
from lmlab.data.files import Malformed
from lmlab.data.spans import Span, bio, bracketed, flat, from_bioes, from_iob1
from lmlab.errors import DataError

WHOLE = {"valid_share": 0.0, "test_share": 0.0}

CONLL_2003 = """-DOCSTART- -X- -X- O

U.N. NNP I-NP I-ORG
official NN I-NP O
Ekeus NNP I-NP I-PER
Smith NNP I-NP B-PER

# NN I-NP O
"""

ONTONOTES = """#begin document (nw/test/00/test_0000); part 000
nw/test/00/test_0000 0 0 The DT (TOP(S(NP(NP* - - - - (ORG* (ARG0* (ARG0* (3
nw/test/00/test_0000 0 1 Bank NNP *) - - - - (FAC|ORG) * * -
nw/test/00/test_0000 0 2 of IN (PP* - - - - * * * -
nw/test/00/test_0000 0 3 Spain NNP (NP*))) - - - - (GPE)) *) *) (5)|3)
nw/test/00/test_0000 0 4 said VBD (VP* say 01 1 - * (V*) * -
nw/test/00/test_0000 0 5 it PRP (SBAR(S(NP*) - - - - * (ARG1(ARG0*) (ARG1*) (3)
nw/test/00/test_0000 0 6 fell VBD (VP*)))) fall 01 1 - * *) (V*) -
nw/test/00/test_0000 0 7 . . *)) - - - - * * * -

nw/test/00/test_0000 0 0 Yes UH (TOP(INTJ*)) - - - - * -

#end document
"""

WORDS = ("The", "Bank", "of", "Spain", "said", "it", "fell", ".")


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "eng.train").write_text(CONLL_2003)
    (tmp_path / "test.gold_conll").write_text(ONTONOTES.replace("(FAC|ORG)", "(FAC)"))
    return tmp_path


def test_columns_are_words_and_the_last_one_tags(folder):
    found = Conll("eng.train", **WHOLE).split("train")
    words = ("U.N.", "official", "Ekeus", "Smith")
    assert found[0] == TaggedText(words, ("I-ORG", "O", "I-PER", "B-PER"), None, "eng.train:3")
    assert found[1].words == ("#",) and len(found) == 2
    assert Conll("eng.train", column=1, **WHOLE).tags == ("NN", "NNP")


def test_the_published_iob1_becomes_bio(folder):
    dataset = Conll("eng.train", scheme="iob1", **WHOLE)
    assert dataset.split("train")[0].tags == ("B-ORG", "O", "B-PER", "B-PER")
    assert dataset.tags == ("B-ORG", "B-PER", "O")


def test_comments_are_left_out_where_they_are_said_to_be_there(folder):
    (folder / "a.conll").write_text("# text = a b c\na X\nb Y\n")
    assert Conll("a.conll", comment="# ", **WHOLE).split("train")[0].words == ("a", "b")
    with pytest.raises(DataError, match=r"^a\.conll:2: 2 columns, where the sentence's first line has 6\."):
        Conll("a.conll", **WHOLE).split("train")


def layer(column, **settings):
    return [
        (found.words, " ".join(found.tags))
        for found in Conll("test.gold_conll", column=column, **settings, **WHOLE).split("train")
    ]


def test_nested_named_entities_are_the_outer_or_the_inner_ones(folder):
    assert layer("named_entities") == [(WORDS, "B-ORG I-ORG I-ORG I-ORG O O O O"), (("Yes",), "O")]
    assert layer("named_entities", nested="innermost")[0] == (WORDS, "O B-FAC O B-GPE O O O O")


def test_each_predicate_gives_its_sentence_with_its_arguments(folder):
    outer = [(WORDS, "B-ARG0 I-ARG0 I-ARG0 I-ARG0 B-V B-ARG1 I-ARG1 O"),
             (WORDS, "B-ARG0 I-ARG0 I-ARG0 I-ARG0 O B-ARG1 B-V O")]  # fmt: skip
    assert layer("predicates") == outer
    assert layer("predicates", predicate=1) == outer[1:]
    assert layer("predicates", nested="innermost")[0] == (WORDS, "B-ARG0 I-ARG0 I-ARG0 I-ARG0 B-V B-ARG0 O O")
    assert Conll("test.gold_conll", column="predicates", **WHOLE).notes == {"no_predicate": 1.0}


def test_a_mark_shows_whose_arguments_are_asked_for(folder):
    marked = layer("predicates", predicate_mark="<v>")
    assert marked[1] == (
        (*WORDS[:6], "<v>", *WORDS[6:]),
        "B-ARG0 I-ARG0 I-ARG0 I-ARG0 O B-ARG1 O B-V O",
    )


def test_parse_bits_are_base_phrases_and_parts_of_speech_are_as_they_are(folder):
    assert layer("parse", nested="innermost")[0] == (WORDS, "B-NP I-NP O B-NP O B-NP B-VP O")
    assert layer("parse")[0][1] == "B-TOP" + " I-TOP" * 7
    assert layer("pos")[0][1] == "DT NNP IN NNP VBD PRP VBD ."


@pytest.mark.parametrize(
    ("old", "new", "line", "message"),
    [
        ("(GPE))", "(GPE)", 2, r"unbalanced brackets: '\(ORG\*' at word 0 of the sentence is never closed"),
        ("(GPE))", "(GPE)))", 2, r"unbalanced brackets: '\(GPE\)\)\)' at word 3 of the sentence closes none"),
        ("(GPE))", "GPE)", 2, "'GPE\\)' at word 3 of the sentence is no bracketed cell"),
        ("(GPE)) *)", "(GPE))", 5, "13 columns, where the sentence's first line has 14"),
    ],
)
def test_a_malformed_sentence_is_named_or_dropped_and_counted(folder, old, new, line, message):
    (folder / "bad").write_text(ONTONOTES.replace("(FAC|ORG)", "(FAC)").replace(old, new, 1))
    with pytest.raises(DataError, match=rf"^bad:{line}: {message}"):
        Conll("bad", column="named_entities", **WHOLE).split("train")
    dataset = Conll("bad", column="named_entities", malformed="drop", **WHOLE)
    assert [found.words for found in dataset.split("train")] == [("Yes",)] and dataset.notes == {"malformed": 1.0}


def test_bytes_that_are_not_utf8_and_columns_that_are_not_there_are_named(folder):
    (folder / "a").write_bytes(b"a X\ncaf\xe9 Y\n")
    with pytest.raises(DataError, match=r"^a:2: byte 0xe9 is not UTF-8"):
        Conll("a", **WHOLE).split("train")
    (folder / "a").write_text("a X\n")
    with pytest.raises(DataError, match=r"^a:1: no column 3: there are 2"):
        Conll("a", column=3, **WHOLE).split("train")


def test_equal_sentences_are_in_one_split_whatever_their_tags(folder):
    (folder / "a").write_text("".join(f"word {'X' if n % 2 else 'Y'}\n{n % 101} Z\n\n" for n in range(404)))
    dataset = Conll("a", valid_share=0.2, test_share=0.2)
    words = [{found.words for found in dataset.split(split)} for split in ("train", "valid", "test")]
    assert sum(map(len, words)) == 101


# --- Spans, against a count of all words in all of them -------------------------------------------------------


@st.composite
def trees(draw, words=7):
    """Properly nested spans over so many words."""
    edges = st.tuples(st.integers(0, words - 1), st.integers(0, words - 1)).map(sorted)
    spans = []
    for first, last in draw(st.lists(edges, max_size=6)):
        if all(last < a or first > b or (a <= first and last <= b) or (first <= a and b <= last) for _, a, b in spans):
            spans.append((f"L{len(spans)}", first, last))
    return spans


def cells_of(spans, words=7):
    """Brackets as they are written: wide spans open first and close last."""
    cells = []
    for place in range(words):
        opened = sorted((s for s in spans if s[1] == place), key=lambda s: -s[2])
        closed = sum(s[2] == place for s in spans)
        cells.append("".join(f"({label}" for label, *_ in opened) + "*" + ")" * closed)
    return cells


@given(trees())
def test_brackets_are_the_spans_that_they_were_written_from(spans):
    # Of spans over the same words the labels may come in any order of nesting.
    assert sorted((first, last) for _, first, last in bracketed(cells_of(spans))) == sorted(s[1:] for s in spans)


@given(trees())
def test_flat_spans_are_those_in_no_other_or_with_no_other_in_them(spans):
    found = bracketed(cells_of(spans))
    places = {span[1:] for span in found}
    outer = {a for a in places if not any(b != a and b[0] <= a[0] and a[1] <= b[1] for b in places)}
    inner = {a for a in places if not any(b != a and a[0] <= b[0] and b[1] <= a[1] for b in places)}
    assert sorted(span[1:] for span in flat(found, "outermost")) == sorted(outer)
    assert sorted(span[1:] for span in flat(found, "innermost")) == sorted(inner)


def test_of_spans_over_the_same_words_the_first_opened_is_the_outer_one():
    found = bracketed(["(A(B*", "*))"])
    assert flat(found, "outermost") == [Span("A", 0, 1)] and flat(found, "innermost") == [Span("B", 0, 1)]


@pytest.mark.parametrize("cells", [["(A*"], ["*)"], ["-"], ["A"], ["(*)"], [""], [")"]])
def test_cells_that_are_not_brackets_are_malformed(cells):
    with pytest.raises(Malformed):
        bracketed(cells)


def test_every_scheme_of_three_words_is_the_same_spans():
    kinds = [("PER", "LOC")[n % 2] for n in range(2)]
    for spans in itertools.chain.from_iterable(
        ([], [Span(kind, a, b)], [Span(kind, a, b), Span(other, b + 1, 2)] if b < 2 else [])
        for kind in kinds
        for other in kinds
        for a in range(3)
        for b in range(a, 3)
    ):
        iob1, bioes = ["O"] * 3, ["O"] * 3
        for n, (label, first, last) in enumerate(spans):
            touches = n and spans[n - 1].label == label
            for place in range(first, last + 1):
                iob1[place] = f"{'B' if touches and place == first else 'I'}-{label}"
                end = "S" if first == last else {first: "B", last: "E"}.get(place, "I")
                bioes[place] = f"{end}-{label}"
        assert from_iob1(iob1) == from_bioes(bioes) == bio(spans, 3)
