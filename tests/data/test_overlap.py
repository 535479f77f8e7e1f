"""Train-test overlap against sets of n-grams, and the command's table."""

import random
import re

import pytest

from lmlab.cli.main import main
from lmlab.data.datasets.random_tokens import RandomTokens
from lmlab.data.overlap import overlaps
from lmlab.errors import ConfigError, DataError
from lmlab.examples import LabelledText, Text


class Corpus:
    def __init__(self, example=Text, **splits):
        self.example, self.splits = example, splits

    def split(self, name):
        if name not in self.splits:
            raise DataError(f"no split '{name}'")
        return tuple(self.splits[name])

    def fingerprint(self):
        return {}


def grams(text, n):
    words = re.sub(r"[^\w\s]", "", text.lower()).split()
    return [tuple(words[i : i + n]) for i in range(len(words) - n + 1)]


@pytest.mark.parametrize("n", [1, 3, 5])
def test_the_overlap_is_that_of_sets_of_ngrams(n):
    rng = random.Random(7)
    texts = [
        " ".join(rng.choices(["The", "cat,", "Cat", "sat!", "mat", "日本"], k=rng.randint(1, 11))) for _ in range(61)
    ]
    train, valid = texts[:40], texts[40:] + texts[3:5]
    (found,) = overlaps(Corpus(train=map(Text, train), valid=map(Text, valid)), n)
    known = {gram for text in train for gram in grams(text, n)}
    hits = [sum(gram in known for gram in grams(text, n)) for text in valid]
    assert (found.split, found.examples) == ("valid", 23)
    assert found.exact == sum(text in train for text in valid) >= 2
    assert found.touched == sum(hit > 0 for hit in hits) > 0
    assert found.shared == sum(hits) and found.grams == sum(len(grams(text, n)) for text in valid)
    assert found.short == sum(len(grams(text, n)) == 0 for text in valid)


def test_labels_and_case_do_not_make_an_exact_copy():
    train = [LabelledText("A cat", "animal"), LabelledText("One", "number", "Two")]
    test = [LabelledText("A cat", "thing"), LabelledText("a cat", "animal"), LabelledText("One", "number", "Three")]
    (found,) = overlaps(Corpus(LabelledText, train=train, test=test), 2)
    assert (found.split, found.exact, found.touched, found.short) == ("test", 1, 2, 1)


def test_ids_have_no_words():
    with pytest.raises(ConfigError, match="yields Tokens, not text"):
        overlaps(RandomTokens())


def test_the_command_prints_a_line_for_each_split(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    for name, text in {"train": "one two three four\nfive", "valid": "one two three\nsix", "test": "five\nsix"}.items():
        (tmp_path / f"{name}.txt").write_text(text)
    files = [f"text_files.{name} = '{name}.txt'" for name in ("train", "valid", "test")]
    bindings = ["--set", "; ".join([*files, "text_files.documents = 'line'"])]
    assert main(["data", "overlap", "text_files", "--n", "2", *bindings]) == 0
    header, valid, test = capsys.readouterr().out.splitlines()
    assert "with a shared 2-gram" in header
    assert valid.split() == ["valid", "2", "0", "(0.00%)", "1", "(50.00%)", "1", "2", "(100.00%)"]
    assert test.split() == ["test", "2", "1", "(50.00%)", "0", "(0.00%)", "2", "-"]


def test_ngrams_of_no_words_are_refused(capsys):
    assert main(["data", "overlap", "text_files", "--n", "0"]) == 2
    assert "--n 0" in capsys.readouterr().err
