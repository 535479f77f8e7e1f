"""Equations modulo a prime and products of permutations: the finite tasks on which generalisation comes late."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Literal

import numpy as np

from lmlab.contracts import TokenSequence
from lmlab.data.generated.drawing import Generated, check_split, fingerprint
from lmlab.errors import ConfigError, DataError
from lmlab.ranges import ProperFraction, Seed, Within
from lmlab.registry import datasets

Operation = Literal[
    "add", "subtract", "divide", "divide_odd_else_subtract", "x2_y2", "x2_xy_y2", "x2_xy_y2_x", "x3_xy", "x3_xy2_y",
    "s5_multiply", "s5_conjugate", "s5_multiply_twice",
]  # fmt: skip
POLYNOMIALS: dict[str, Callable[[np.ndarray, np.ndarray], np.ndarray]] = {
    "add": lambda x, y: x + y,
    "subtract": lambda x, y: x - y,
    "x2_y2": lambda x, y: x**2 + y**2,
    "x2_xy_y2": lambda x, y: x**2 + x * y + y**2,
    "x2_xy_y2_x": lambda x, y: x**2 + x * y + y**2 + x,
    "x3_xy": lambda x, y: x**3 + x * y,
    "x3_xy2_y": lambda x, y: x**3 + x * y**2 + y,
}
END, EQUALS, FIRST_OPERATOR, OPERATORS = 0, 1, 2, 20
FIRST_NUMBER = FIRST_OPERATOR + OPERATORS
PERMUTATIONS = 120
NAMES = (*POLYNOMIALS, "divide", "divide_odd_else_subtract", "s5_multiply", "s5_conjugate", "s5_multiply_twice")


@datasets.register("modular_arithmetic")
@dataclass(frozen=True, kw_only=True)
class ModularArithmetic:
    """All equations x ∘ y = z of one operation (Power et al. 2022, arXiv:2201.02177, appendix A.1).

    Modulo a prime p: `add`, `subtract`, `divide` (y ≠ 0), `divide_odd_else_subtract` (x / y for odd y, else x - y) and
    polynomials, of which `x3_xy2_y` is x³ + xy² + y; or of the 120 permutations of five things: xy, xyx⁻¹ and xyx.
    p² equations, p·(p - 1) for `divide` (9,312 for 97), 14,400 for permutations.

    Yields `TokenSequence` of 7 ids, int32, `eos x ∘ y = z eos`; targets are the next ids, with weight 1 on z and on the
    second eos and 0 elsewhere. Ids: 0 eos, 1 `=`, 2 to 21 operators, then p numbers, then 120 permutations in
    lexicographic order: 239 for p = 97, the published size (the published order of ids is not kept).

    The equations, in the order of x, then y (of z, then y for `divide`, where x = z·y), are shuffled by
    `numpy.random.RandomState(shuffle)`, and the first round(N · percent / 100) are for training. The paper validates on
    all others: that is `test_share` 0. Otherwise the last part of these is for testing.

    Args:
      operation: ∘.
      modulus: p, a prime.
      percent: of the equations that are trained on.
      test_share: part of the equations that are not trained on which becomes the test split.
      shuffle: seed of the shuffling.
    """

    example: ClassVar[type] = TokenSequence
    TINY: ClassVar[str] = "modular_arithmetic.modulus = 13"

    operation: Operation = "divide"
    modulus: Annotated[int, Within(at_least=2, at_most=9973)] = 97
    percent: Annotated[float, Within(above=0, below=100)] = 50.0
    test_share: ProperFraction = 0.1
    shuffle: Seed = 0

    def __post_init__(self) -> None:
        if any(self.modulus % divisor == 0 for divisor in range(2, int(self.modulus**0.5) + 1)):
            raise ConfigError(f"modular_arithmetic.modulus = {self.modulus}: it must be a prime, such as 97 or 113.")

    @property
    def vocab(self) -> int:
        """Number of ids."""
        return FIRST_NUMBER + self.modulus + PERMUTATIONS

    def split(self, name: str) -> Sequence[TokenSequence]:
        """The equations of `train`, `valid` or `test`; DataError where there are none."""
        check_split(self, name)
        begin, end = self._edges[name]
        if begin == end:
            way_out = "modular_arithmetic.test_share" if name == "test" else "modular_arithmetic.percent"
            raise DataError(f"modular_arithmetic: no equations in the split '{name}'. Change {way_out}.")
        rows = self._shuffled[begin:end]
        return Generated(lambda i: self._example(rows[i], f"modular_arithmetic/{name}/{i}"), range(len(rows)))

    def fingerprint(self) -> dict[str, Any]:
        """The parameters, and the length and first equations of every split."""
        return fingerprint(self, {name: self.split(name) for name, (begin, end) in self._edges.items() if begin < end})

    def known(self) -> dict[str, float]:
        """What can be reached, and what is reached by answering with what is most frequent or at random."""
        answers = self.equations[:, 2]
        counts = np.bincount(answers)
        shares = counts[counts > 0] / len(answers)
        return {
            "optimum/nats_per_token": 0.0,
            "optimum/accuracy": 1.0,
            "chance/accuracy": float(shares.max()),
            "chance/answer_nats": float(-(shares * np.log(shares)).sum()),
            "count/equations": float(len(answers)),
            **{f"count/{name}": float(end - begin) for name, (begin, end) in self._edges.items()},
        }

    @functools.cached_property
    def equations(self) -> np.ndarray:
        """x, y and z of every equation, in their order before shuffling; (N, 3), numbers or permutations from 0."""
        if self.operation.startswith("s5"):
            return _of_permutations(self.operation)
        return _of_numbers(self.operation, self.modulus)

    @functools.cached_property
    def _shuffled(self) -> np.ndarray:
        order = np.arange(len(self.equations))
        np.random.RandomState(self.shuffle).shuffle(order)
        return self.equations[order]

    @functools.cached_property
    def _edges(self) -> dict[str, tuple[int, int]]:
        """Where each split begins and ends among the shuffled equations."""
        total = len(self.equations)
        trained = round(total * self.percent / 100)
        tested = round((total - trained) * self.test_share)
        return {"train": (0, trained), "valid": (trained, total - tested), "test": (total - tested, total)}

    def _example(self, equation: np.ndarray, source: str) -> TokenSequence:
        first = FIRST_NUMBER + (self.modulus if self.operation.startswith("s5") else 0)
        x, y, z = (first + equation).tolist()
        ids = np.array([END, x, FIRST_OPERATOR + NAMES.index(self.operation), y, EQUALS, z, END], np.int32)
        return TokenSequence(ids, weights=np.array([0, 0, 0, 0, 1, 1], np.float32), source=source)


def _of_numbers(operation: str, p: int) -> np.ndarray:
    first, second = (part.reshape(-1) for part in np.indices((p, p)))
    if operation == "divide":
        z, y = first[second > 0], second[second > 0]
        return np.stack([z * y % p, y, z], axis=1)
    if operation == "divide_odd_else_subtract":
        inverse = np.array([0, *(pow(y, -1, p) for y in range(1, p))])
        z = np.where(second % 2, first * inverse[second], first - second)
    else:
        z = POLYNOMIALS[operation](first, second)
    return np.stack([first, second, z % p], axis=1)


def _of_permutations(operation: str) -> np.ndarray:
    """(x·y)(i) = x(y(i)): y is done first."""
    things = np.array(list(itertools.permutations(range(5))))
    number = {tuple(permutation): i for i, permutation in enumerate(things.tolist())}
    x, y = (part.reshape(-1) for part in np.indices((PERMUTATIONS, PERMUTATIONS)))
    product = np.take_along_axis(things[x], things[y], axis=1)
    if operation != "s5_multiply":
        last = things[x] if operation == "s5_multiply_twice" else np.argsort(things, axis=1)[x]
        product = np.take_along_axis(product, last, axis=1)
    return np.stack([x, y, np.array([number[tuple(row)] for row in product.tolist()])], axis=1)
