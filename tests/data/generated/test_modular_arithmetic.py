"""Modular arithmetic: every equation by Python's integers, every product of permutations, the published split."""

import itertools

import numpy as np
import pytest

from lmlab.data.generated.modular_arithmetic import ModularArithmetic
from lmlab.errors import ConfigError, DataError

P = 7
NUMBERS = {
    "add": lambda x, y: x + y,
    "subtract": lambda x, y: x - y,
    "divide": lambda x, y: x * y ** (P - 2),  # Fermat
    "divide_odd_else_subtract": lambda x, y: x * y ** (P - 2) if y % 2 else x - y,
    "x2_y2": lambda x, y: x * x + y * y,
    "x2_xy_y2": lambda x, y: x * x + x * y + y * y,
    "x2_xy_y2_x": lambda x, y: x * x + x * y + y * y + x,
    "x3_xy": lambda x, y: x * x * x + x * y,
    "x3_xy2_y": lambda x, y: x * x * x + x * y * y + y,
}


@pytest.mark.parametrize("operation", NUMBERS)
def test_equations_hold(operation):
    equations = ModularArithmetic(operation=operation, modulus=P).equations.tolist()
    expected = {
        (x, y, NUMBERS[operation](x, y) % P)
        for x, y in itertools.product(range(P), repeat=2)
        if y or operation != "divide"
    }
    assert {tuple(row) for row in equations} == expected and len(equations) == len(expected)


@pytest.mark.parametrize("operation", ["s5_multiply", "s5_conjugate", "s5_multiply_twice"])
def test_products_of_permutations_hold(operation):
    things = list(itertools.permutations(range(5)))
    equations = ModularArithmetic(operation=operation).equations
    assert equations.shape == (14_400, 3) and len({(x, y) for x, y, _ in equations.tolist()}) == 14_400
    for x, y, z in equations[::97].tolist():
        last = {"s5_multiply": range(5), "s5_conjugate": [things[x].index(i) for i in range(5)]}.get(
            operation, things[x]
        )
        assert things[z] == tuple(things[x][things[y][i]] for i in last)


def test_division_is_split_as_published():
    dataset = ModularArithmetic(test_share=0.0)
    train, valid = dataset.split("train"), dataset.split("valid")
    assert (len(train), len(valid), dataset.vocab) == (4656, 4656, 239)
    order = [(z * y % 97, y, z) for z in range(97) for y in range(1, 97)]
    np.random.RandomState(0).shuffle(order)
    found = [tuple(int(id_) - 22 for id_ in example.ids[[1, 3, 5]]) for example in (*train, *valid)]
    assert found == order
    with pytest.raises(DataError, match=r"no equations in the split 'test'\. Change modular_arithmetic\.test_share"):
        dataset.split("test")


@pytest.mark.parametrize(("operation", "count"), [("divide", 9312), ("add", 9409), ("s5_multiply", 14_400)])
def test_splits_are_all_equations_once(operation, count):
    dataset = ModularArithmetic(operation=operation, percent=30, test_share=0.25)
    splits = [[tuple(e.ids.tolist()) for e in dataset.split(name)] for name in ("train", "valid", "test")]
    rows = [row for split in splits for row in split]
    assert len(rows) == len(set(rows)) == count and len(splits[0]) == round(0.3 * count)
    assert len(splits[2]) == round(0.25 * (count - len(splits[0])))


def test_a_row_asks_for_the_answer_and_the_end():
    example = ModularArithmetic(operation="add").split("train")[0]
    end, x, operator, y, equals, z, last = example.ids.tolist()
    assert (end, equals, last) == (0, 1, 0) and operator == 2 and (x + y - 44) % 97 == z - 22
    assert example.targets is None and example.weights.tolist() == [0, 0, 0, 0, 1, 1]
    permuted = ModularArithmetic(operation="s5_multiply").split("train")[:200]
    assert all(22 + 97 <= id_ < 239 for example in permuted for id_ in example.ids[[1, 3, 5]])


def test_chance_is_the_most_frequent_answer():
    for operation in ("add", "x3_xy2_y"):
        dataset = ModularArithmetic(operation=operation)
        _, counts = np.unique([row[2] for row in dataset.equations], return_counts=True)
        known = dataset.known()
        assert known["chance/accuracy"] == pytest.approx(counts.max() / 9409)
    assert ModularArithmetic().known()["chance/accuracy"] == pytest.approx(1 / 97)
    assert ModularArithmetic().known()["chance/answer_nats"] == pytest.approx(np.log(97))


def test_a_modulus_that_is_no_prime_is_refused():
    with pytest.raises(ConfigError, match=r"modular_arithmetic\.modulus = 91: it must be a prime"):
        ModularArithmetic(modulus=91)
