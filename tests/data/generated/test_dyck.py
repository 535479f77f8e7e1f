"""Dyck: rows are prefixes of streams of words; the entropy by the enumeration of all rows."""

import math

import numpy as np
import pytest

from lmlab.data.generated.dyck import Dyck


def rows(dataset):
    """Every possible row of `dataset` with its probability, by walking the grammar."""

    def walk(length, stack):
        if not length:
            yield (), 1.0
            return
        k, can_open = dataset.kinds, len(stack) < dataset.depth
        opening = (1 - dataset.end) if not stack else dataset.open if can_open else 0.0
        for kind in range(k) if can_open else ():
            yield from ((((kind), *rest), opening / k * p) for rest, p in walk(length - 1, (*stack, kind)))
        last = k + stack[-1] if stack else 2 * k
        yield from (((last, *rest), (1 - opening) * p) for rest, p in walk(length - 1, stack[:-1]))

    return dict(walk(dataset.length, ()))


@pytest.mark.parametrize("settings", [{"depth": 1}, {"depth": 2}, {"depth": 3, "open": 0.3, "end": 0.6}])
def test_its_entropy_is_that_of_all_rows(settings):
    dataset = Dyck(kinds=2, length=6, **settings)
    law = rows(dataset)
    assert sum(law.values()) == pytest.approx(1, rel=1e-12)
    entropy = -sum(p * math.log(p) for p in law.values())
    assert dataset.known()["entropy/nats_per_token"] == pytest.approx(entropy / 6, rel=1e-12)


def test_who_keeps_no_stack_guesses_which_bracket_closes():
    """-log p of a predictor that spreads a closing bracket's probability over all kinds, summed over all rows."""
    dataset = Dyck(kinds=3, depth=2, length=5)
    law = rows(dataset)
    entropy = -sum(p * math.log(p) for p in law.values())
    closing = sum(p * sum(3 <= token < 6 for token in row) for row, p in law.items())
    known = dataset.known()
    assert known["without_stack/nats_per_token"] == pytest.approx((entropy + closing * math.log(3)) / 5, rel=1e-12)
    assert known["chance/closing_accuracy"] == pytest.approx(1 / 3)


def test_the_number_of_words_is_that_of_the_transfer_matrix():
    """Rows of 2n tokens that end outside of all brackets: k^n times the paths of bounded height."""
    dataset = Dyck(kinds=2, depth=4, length=8)
    words = [row for row in rows(dataset) if 4 not in row and sum(t < 2 for t in row) == 4]
    assert len(words) == 14 * 2**4  # Catalan number C_4
    shallow = [row for row in rows(Dyck(kinds=2, depth=2, length=8)) if 4 not in row and sum(t < 2 for t in row) == 4]
    paths = np.linalg.matrix_power(np.eye(3, k=1) + np.eye(3, k=-1), 8)[0, 0]
    assert len(shallow) == round(paths) * 2**4


def test_rows_are_drawn_from_the_law():
    dataset, count = Dyck(kinds=2, depth=2, length=4), 6000
    law = rows(dataset)
    drawn = [tuple(example.ids.tolist()) for example in dataset.split("train")[:count]]
    assert {row[0] for row in drawn} == {4} and {row[1:] for row in drawn} <= set(law)
    chi2 = sum((sum(d[1:] == row for d in drawn) - p * count) ** 2 / (p * count) for row, p in law.items())
    assert chi2 < len(law) + 5 * math.sqrt(2 * len(law))


def test_rows_of_the_default_are_well_nested_and_bounded():
    for example in Dyck().split("train")[:100]:
        stack = []
        for token in example.ids[1:].tolist():
            if token < 8:
                stack.append(token)
            elif token < 16:
                assert stack.pop() == token - 8
            else:
                assert not stack
            assert len(stack) <= 5


def test_the_best_guess_is_right_as_often_as_is_said():
    dataset = Dyck(kinds=2, depth=2, length=5)
    law = rows(dataset)
    prefixes = {}
    for row, p in law.items():
        for t in range(5):
            prefixes.setdefault(row[:t], {}).setdefault(row[t], 0.0)
            prefixes[row[:t]][row[t]] += p
    right = sum(max(following.values()) for following in prefixes.values()) / 5
    assert dataset.known()["optimum/accuracy"] == pytest.approx(right, rel=1e-12)
