"""The space of a sweep as plain data: axes, how they are combined, and the settings that this comes to."""

from __future__ import annotations

import ast
import itertools
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Literal, NamedTuple

import numpy as np

from lmlab.contracts import Launcher, Spec
from lmlab.errors import ConfigError
from lmlab.ranges import Count, Seed
from lmlab.registry import settings
from lmlab.specs import Ref, Written
from lmlab.sweeps.halving import Halving
from lmlab.sweeps.ladder import Ladder
from lmlab.sweeps.search import Optuna

SEED = "experiment.seed"
"""The key that seeds bind; no axis."""

Settings = dict[str, str]
"""What a trial binds, as gin writes it: key -> value."""


@settings.register("space")
@dataclass(frozen=True)
class Space:
    """Some axes, and how their values are combined.

    An axis is a key of the configuration with the values that it takes, components included; of a random space, also
    a range to draw from:

        space.axes = {
            'experiment.model': [@gpt, @lstm],
            'adamw.learning_rate': ('log_uniform', 1e-4, 1e-2),
        }

    Ranges: `('uniform', low, high)`, `('log_uniform', low, high)`, `('int_uniform', low, high)`, ends included.

    Args:
      axes: key -> values.
      combine: `product` takes every combination; `zip` the first values together, the second ones, and so on;
        `ablate` the first value of every axis (the baseline), and then one other value of one axis at a time; `random`
        draws every axis by itself.
      draws: of `random`: how many.
      draw_seed: of `random`.
      when: axis -> {other axis: values}: the axis is left as the file has it unless each of these other axes has one of
        these values. (An axis that means nothing in a trial, as `gpt.layers` where the model is another one, is left
        out there anyway.)
    """

    axes: Mapping[str, tuple[Written, ...]] = field(default_factory=dict)
    combine: Literal["product", "zip", "ablate", "random"] = "product"
    draws: Count = 16
    draw_seed: Seed = 0
    when: Mapping[str, Mapping[str, tuple[Written, ...]]] = field(default_factory=dict)


@settings.register("sweep")
@dataclass(frozen=True)
class Sweep(Space):
    """Trials of the experiment that stands in the same files; every setting is run once with every seed.

    Args:
      axes, combine, draws, draw_seed, when: see `space`.
      chain: further spaces, whose settings come after these.
      over_compute: a `ladder` of sizes and numbers of tokens, climbed under every setting; None: no such thing.
      seeds: of the experiment; none: only its own.
      fail_after: start no further trial when so many have failed (None: go on with the others).
      workers: processes that train at the same time; on a CPU each has its own processors. None: what a few timed steps
        say is faster (where a sweep has fewer than 1,000 in all: one).
      strategy: how a process trains trials that differ in numbers alone: one after the other (`sequential`), several
        that take turns after each step (`interleaved`), or several at once by one program over a new leading axis
        (`vmap`). `auto`: what a few steps say; on a CPU `sequential`, where `vmap` is no faster.
      population: most trials that a process trains at a time, with `interleaved` and `vmap`.
      together: train trials that differ in numbers alone by one compiled program.
      launcher: where workers are started: here, or by another one (`lmlab list launcher`).
      halving: lets settings go that are behind: @halving(); None: all are trained to the end.
      search: proposes settings by what came of earlier ones: @optuna(); None: all that the axes come to are run.
    """

    chain: tuple[Annotated[Spec, Space], ...] = ()
    over_compute: Annotated[Spec, Ladder] | None = None
    seeds: tuple[Seed, ...] = ()
    fail_after: Count | None = None
    workers: Count | None = None
    strategy: Literal["auto", "sequential", "interleaved", "vmap"] = "auto"
    population: Count = 8
    together: bool = True
    launcher: Launcher = Ref("local")  # type: ignore[assignment]  # noqa: RUF009
    halving: Annotated[Spec, Halving] | None = None
    search: Annotated[Spec, Optuna] | None = None


def settings_of(space: Space) -> list[Settings]:
    """All settings of a space, in order; the first one of an ablation is its baseline.

    Raises:
      ConfigError: axes that cannot be combined so.
    """
    _check(space)
    found = _COMBINE[space.combine](space)
    return list({tuple(one.items()): one for one in (without_the_unfit(space, one) for one in found)}.values())


def check_for_search(sweep: Sweep) -> None:
    """ConfigError where a search cannot propose values for the axes."""
    for key, values in sweep.axes.items():
        range_of(key, values)
    other = next((name for name in ("chain", "over_compute") if getattr(sweep, name)), None)
    if other or not sweep.axes or sweep.combine != "product":
        what = f"sweep.{other}" if other else "sweep.combine" if sweep.axes else "no axes"
        raise ConfigError(f"sweep.search proposes values of sweep.axes, each by itself, which {what} does not go with.")


def _check(space: Space) -> None:
    for key, values in space.axes.items():
        if key == SEED:
            raise ConfigError("'experiment.seed' is no axis: every setting is run with each seed of sweep.seeds.")
        if not values:
            raise ConfigError(f"the axis '{key}' has no values.")
        if range_of(key, values) and space.combine != "random":
            raise ConfigError(
                f"the axis '{key}' is a range, {values[0]}, which combine = '{space.combine}' cannot enumerate. List "
                "values, or set combine = 'random'."
            )
        if space.combine != "zip" and len(set(values)) < len(values):
            twice = next(value for value in values if values.count(value) > 1)
            raise ConfigError(f"the axis '{key}' has the value {twice} twice. Keep one of them.")
    for key, needs in space.when.items():
        if strange := [other for other in (key, *needs) if other not in space.axes]:
            raise ConfigError(f"the condition of '{key}' speaks of '{strange[0]}', which is no axis.")


def _product(space: Space) -> Iterator[Settings]:
    for values in itertools.product(*space.axes.values()):
        yield dict(zip(space.axes, values, strict=True))


def _zip(space: Space) -> Iterator[Settings]:
    lengths = {key: len(values) for key, values in space.axes.items()}
    if len(set(lengths.values())) > 1:
        each = ", ".join(f"'{key}' {length}" for key, length in lengths.items())
        raise ConfigError(f"combine = 'zip' takes values together, of which the axes have different numbers: {each}.")
    for values in zip(*space.axes.values(), strict=True):
        yield dict(zip(space.axes, values, strict=True))


def _ablate(space: Space) -> Iterator[Settings]:
    baseline: Settings = {key: values[0] for key, values in space.axes.items()}
    yield baseline
    for key, (_, *others) in space.axes.items():
        yield from ({**baseline, key: value} for value in others)


def _random(space: Space) -> Iterator[Settings]:
    draw = np.random.default_rng(space.draw_seed)
    ranges = {key: range_of(key, values) for key, values in space.axes.items()}
    for _ in range(space.draws):
        yield {key: _drawn(ranges[key], values, draw) for key, values in space.axes.items()}


def _drawn(found: Range | None, values: Sequence[str], draw: np.random.Generator) -> str:
    return values[int(draw.integers(len(values)))] if found is None else found.drawn(draw)


_COMBINE: dict[str, Callable[[Space], Iterator[Settings]]] = {
    "product": _product,
    "zip": _zip,
    "ablate": _ablate,
    "random": _random,
}


class Range(NamedTuple):
    """An axis whose values are drawn: ends included."""

    kind: Literal["uniform", "log_uniform", "int_uniform"]
    low: float
    high: float

    def drawn(self, draw: np.random.Generator) -> str:
        """A value, as gin writes it."""
        if self.kind == "int_uniform":
            return self.text(int(draw.integers(int(self.low), int(self.high), endpoint=True)))
        if self.kind == "uniform":
            return self.text(draw.uniform(self.low, self.high))
        return self.text(math.exp(draw.uniform(math.log(self.low), math.log(self.high))))

    def text(self, value: float) -> str:
        """A value as gin writes it: a float with six digits."""
        return str(value) if self.kind == "int_uniform" else repr(float(f"{value:.6g}"))


def range_of(key: str, values: Sequence[str]) -> Range | None:
    """The range that an axis is; None for a list of values.

    Raises:
      ConfigError: it is written as a range, and is none.
    """
    kind = values[0].strip("'\"")
    if kind not in ("uniform", "log_uniform", "int_uniform"):
        return None
    try:
        low, high = (ast.literal_eval(value) for value in values[1:])
        good = math.isfinite(low) and low < high and (kind != "log_uniform" or low > 0)
    except (ValueError, TypeError):
        good = False
    if not good or (kind == "int_uniform" and not (type(low) is type(high) is int)):
        raise ConfigError(f"the axis '{key}' draws from no range: ({', '.join(values)}). Write ('{kind}', low, high).")
    return Range(kind, low, high)  # type: ignore[arg-type]


def without_the_unfit(space: Space, setting: Settings) -> Settings:
    """The setting without the axes whose condition does not hold in it."""

    def holds(key: str) -> bool:
        return all(setting[other] in values for other, values in space.when.get(key, {}).items())

    return {key: value for key, value in setting.items() if holds(key)}
