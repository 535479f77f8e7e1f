"""What holds for all metrics: batches, padding and processes do not change a digit; a missing library is one line."""

import pickle
import random
import statistics
import sys
from fractions import Fraction

import pytest

from lmlab.errors import ConfigError
from lmlab.evaluation.metrics.answers import Squad
from lmlab.evaluation.metrics.classification import Accuracy, Classification
from lmlab.evaluation.metrics.sequences import SequenceErrors
from lmlab.evaluation.metrics.spans import SpanF1
from lmlab.evaluation.metrics.summaries import Rouge
from lmlab.evaluation.metrics.totals import Mean
from lmlab.evaluation.metrics.translation import BLEU, ChrF

WORDS = ["the", "a", "cat", "Dog", "sat", "on", "mat,", "日本", "saw", "it;", "not", "7", "times"]
N = 29


def sentence(rng):
    return " ".join(rng.choices(WORDS, k=rng.randint(1, 9)))


def texts(rng):
    return sentence(rng), [sentence(rng) for _ in range(rng.randint(1, 3))]


def ids(rng):
    return rng.randint(0, 6), rng.randint(0, 6)


def tags(rng):
    length = rng.randint(1, 7)
    return tuple([rng.choice(["O", "B-x", "I-x", "B-y", "I-y"]) for _ in range(length)] for _ in range(2))


def words(rng):
    text, references = texts(rng)
    return text.split(), [reference.split() for reference in references]


METRICS = {
    "accuracy": (Accuracy, ids),
    "classification": (lambda: Classification(7), ids),
    "spans": (SpanF1, tags),
    "strict spans": (lambda: SpanF1(strict=True), tags),
    "bleu": (BLEU, texts),
    "chrf": (ChrF, texts),
    "rouge": (Rouge, texts),
    "squad": (Squad, texts),
    "squad 2.0": (lambda: Squad("2.0"), texts),
    "errors": (SequenceErrors, words),
}


@pytest.mark.parametrize(("make", "draw"), METRICS.values(), ids=METRICS)
def test_batches_padding_and_processes_do_not_change_a_digit(make, draw):
    rng = random.Random(11)
    rows = [draw(rng) for _ in range(N)]
    whole = make()
    whole.add(*map(list, zip(*rows, strict=True)))
    processes = [make() for _ in range(3)]
    for number, batch in enumerate(batches(rows)):
        padded = [*batch, *(draw(rng) for _ in range(2))]
        weights = [1.0] * len(batch) + [0.0] * 2
        processes[number % 3].add(*map(list, zip(*padded, strict=True)), weights)
    first, *others = (pickle.loads(pickle.dumps(process)) for process in processes)
    for other in others:
        first.merge(other)
    assert whole.result() and first.result() == whole.result()


def batches(rows):
    backwards = rows[::-1]
    return [backwards[start : start + 4] for start in range(0, len(rows), 4)]


@pytest.mark.parametrize(("make", "draw"), METRICS.values(), ids=METRICS)
def test_nothing_counted_is_no_number(make, draw):
    metric = make()
    assert metric.result() == {}
    metric.add(*([column] for column in draw(random.Random(3))), [0.0])
    assert metric.result() == {}


def test_a_mean_is_exact_whatever_the_order():
    values = [0.1, 1e-17, 1 / 3, 0.7, 1e-9] * 7
    means = []
    for order in (values, values[::-1], sorted(values)):
        mean = Mean()
        for value in order:
            mean.add(value)
        means.append(mean.named("x")["x"])
        together = Mean()
        for part in (order[:3], [], order[3:]):
            together.add_all(part)
        assert (together.total, together.count) == (mean.total, mean.count)
    assert means == [float(statistics.mean(map(Fraction, values)))] * 3


@pytest.mark.parametrize(
    ("make", "module", "words"),
    [
        (lambda: Classification(3), "sklearn", "needs sklearn"),
        (BLEU, "sacrebleu", "metric BLEU needs sacrebleu"),
        (ChrF, "sacrebleu", "metric chrF needs sacrebleu"),
        (lambda: Rouge(stemmer=True), "rouge_score", "metric ROUGE needs rouge_score"),
    ],
)
def test_a_missing_library_is_named_before_anything_is_measured(make, module, words, monkeypatch):
    from lmlab.evaluation.metrics import summaries

    summaries._scorer.cache_clear()
    for name in [name for name in sys.modules if name.split(".")[0] == module]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setattr(sys, "meta_path", [Missing(module), *sys.meta_path])
    with pytest.raises(ConfigError, match=rf"{words}: pip install 'lmlab\[metrics\]'"):
        make()


class Missing:
    """Finds that one module is not installed."""

    def __init__(self, module):
        self.module = module

    def find_spec(self, name, path=None, target=None):
        if name == self.module:
            raise ModuleNotFoundError(f"No module named '{name}'", name=name)
        return


def test_columns_of_different_lengths_are_refused():
    with pytest.raises(ValueError, match="zip"):
        Squad().add(["a", "b"], [["a"]])
    with pytest.raises(ValueError, match="zip"):
        Rouge().add(["a", "b"], [["a"], ["b"]], [1.0])
    with pytest.raises(ValueError, match="shapes differ"):
        Accuracy().add([1, 2], [1, 2], [1.0])
