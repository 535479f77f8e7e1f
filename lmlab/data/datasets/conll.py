"""Tagged sentences in columns: CoNLL-2003 and its like, and CoNLL-2012 (OntoNotes) with its bracketed layers."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

from lmlab.contracts import TaggedText
from lmlab.data.file_splits import FileSplits
from lmlab.data.files import LeftOut, Malformed, check_bytes, lines
from lmlab.data.spans import Nested, bio, bracketed, flat, from_bioes, from_iob1
from lmlab.ranges import Natural
from lmlab.registry import datasets

Layer = Literal["pos", "parse", "named_entities", "predicates"]

_WORD, _POS, _PARSE, _NAMED_ENTITIES, _FIRST_PREDICATE = 3, 4, 5, 10, 11
"""Columns of CoNLL-2012 (Pradhan et al. 2012, table 3); behind the predicates' stands one of coreference."""

_DOCUMENT = "-DOCSTART-"

Line = tuple[str, list[str]]
"""Where a line stands, and its columns."""


@datasets.register("conll")
@dataclass(frozen=True)
class Conll(FileSplits):
    """Sentences with a tag for each word: a word a line in columns, an empty line between sentences.

    Two formats, chosen by `column`: a column's place reads files as those of CoNLL-2003 (columns divided by white
    space; `-DOCSTART-` lines are left out), a layer's name reads CoNLL-2012 (Pradhan et al. 2012, section 5; lines
    that begin with `#` are left out), whose bracketed layers become BIO tags. Splits without files of their own are
    taken out of `train` by the md5 of a sentence's words, so that equal sentences are on one side whatever their tags.

    Malformed is a sentence with lines of different numbers of columns, without the column asked for, with brackets
    that do not match, or not UTF-8. Sentences without a predicate, where these are asked for, are left out and
    counted (`no_predicate`).

    Args:
      train: paths or globs (`**` is any depth), relative to the working directory; `.gz`, `.bz2` and `.xz` too.
      valid: the same for the validation split (none: `valid_share` of train).
      test: the same for the test split (none: `test_share` of train).
      valid_share: part of the sentences that becomes the validation split.
      test_share: part of the sentences that becomes the test split.
      malformed: `refuse` names the first malformed sentence; `drop` leaves such sentences out and counts them.
      column: the column of the tags, a place from 0 on (-1: the last); or a layer of CoNLL-2012: `pos`, `parse`,
        `named_entities`, or `predicates`, of which each gives its sentence once with the tags of its arguments.
      words: the column of the words (None: 0; in CoNLL-2012 it is 3).
      scheme: how a column of CoNLL-2003's kind is written: as `tags`, taken as they are (BIO, parts of speech), in
        `iob1` or `bioes` or `brackets`, turned into BIO.
      nested: of spans in spans (parse, brackets), which become tags: those in no other one, or those with none in them.
      predicate: only this one of each sentence's predicates, from 0 on (None: all).
      predicate_mark: a word put before each predicate (tag `O`), by which a model sees whose arguments are asked for.
      comment: lines that begin with it are left out, such as `# ` (none, since `#` may be a word).
    """

    example: ClassVar[type] = TaggedText
    name: ClassVar[str] = "conll"
    TINY: ClassVar[str] = """
    conll.train = '{folder}/tagged.conll'
    conll.valid_share = 0.2
    conll.test_share = 0.2
    """

    column: int | Layer = -1
    words: int | None = None
    scheme: Literal["tags", "iob1", "bioes", "brackets"] = "tags"
    nested: Nested = "outermost"
    predicate: Natural | None = None
    predicate_mark: str = ""
    comment: str = ""

    @functools.cached_property
    def tags(self) -> tuple[str, ...]:
        """The tags of the training split, sorted."""
        return self._corpus.tags

    def _examples_of(self, file: str, left_out: LeftOut) -> Iterator[TaggedText]:
        comment = self.comment if isinstance(self.column, int) else "#"
        for sentence in _sentences(file, comment):
            where = sentence[0][0]
            with left_out.row(where):
                columns = _columns(sentence)
                tagged = list(self._tagged(columns))
                left_out.counts["no_predicate"] += not tagged
                yield from (TaggedText(words, tags, source=where) for words, tags in tagged)

    def _tagged(self, columns: Sequence[Sequence[str]]) -> Iterator[tuple[tuple[str, ...], tuple[str, ...]]]:
        """Words and tags, once; for each predicate where the layer is that of predicates."""
        if isinstance(self.column, int):
            words, tags = _column(columns, self.words or 0), _column(columns, self.column)
            yield tuple(words), self._bio(tags)
            return
        words = _column(columns, _WORD if self.words is None else self.words)
        if self.column == "predicates":
            yield from self._predicates(words, columns[_FIRST_PREDICATE:-1])
        elif self.column == "pos":
            yield tuple(words), tuple(_column(columns, _POS))
        else:
            cells = _column(columns, _PARSE if self.column == "parse" else _NAMED_ENTITIES)
            yield tuple(words), bio(flat(bracketed(cells), self.nested), len(words))

    def _bio(self, tags: Sequence[str]) -> tuple[str, ...]:
        match self.scheme:
            case "iob1":
                return from_iob1(tags)
            case "bioes":
                return from_bioes(tags)
            case "brackets":
                return bio(flat(bracketed(tags), self.nested), len(tags))
        return tuple(tags)

    def _predicates(
        self, words: Sequence[str], columns: Sequence[Sequence[str]]
    ) -> Iterator[tuple[tuple[str, ...], tuple[str, ...]]]:
        """The sentence with the arguments of each predicate, one column each; the predicate itself is a span `V`."""
        wanted = slice(None) if self.predicate is None else slice(self.predicate, self.predicate + 1)
        for cells in columns[wanted]:
            spans = flat(bracketed(cells), self.nested)
            tags = bio(spans, len(words))
            if not self.predicate_mark:
                yield tuple(words), tags
                continue
            at = next((span.first for span in spans if span.label == "V"), None)
            if at is None:
                raise Malformed("a predicate without a span V, so that nothing can be put before it.")
            yield (*words[:at], self.predicate_mark, *words[at:]), (*tags[:at], "O", *tags[at:])


def _sentences(file: str, comment: str) -> Iterator[list[Line]]:
    """The lines of every sentence in columns, comments and `-DOCSTART-` lines left out."""
    sentence: list[Line] = []
    for where, line in lines(file):
        columns = line.split()
        if columns and columns[0] != _DOCUMENT and not (comment and line.startswith(comment)):
            sentence.append((where, columns))
        elif not columns and sentence:
            yield sentence
            sentence = []
    if sentence:
        yield sentence


def _columns(sentence: Sequence[Line]) -> list[tuple[str, ...]]:
    """The columns of a sentence; Malformed where a line has more or fewer than the first."""
    first = sentence[0][1]
    for where, fields in sentence:
        check_bytes(" ".join(fields), where=where)
        if len(fields) != len(first):
            raise Malformed(f"{len(fields)} columns, where the sentence's first line has {len(first)}.", where)
    return list(zip(*(fields for _, fields in sentence), strict=True))


def _column(columns: Sequence[Sequence[str]], place: int) -> Sequence[str]:
    if not -len(columns) <= place < len(columns):
        raise Malformed(f"no column {place}: there are {len(columns)}, counted from 0.")
    return columns[place]
