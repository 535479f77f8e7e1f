"""Trials that differ in numbers alone, trained by one compiled program: the numbers are inputs of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from typing import Any

import jax
import jax.numpy as jnp

from lmlab.config import Resolved, spec_hash, with_values
from lmlab.contracts import Spec, Value
from lmlab.data import Data, JointData
from lmlab.errors import LmlabError
from lmlab.nn.functional import ModelDef
from lmlab.specs import FrozenDict
from lmlab.sweeps.shelf import Shelf
from lmlab.training.loop import say
from lmlab.training.program import Dispatch, Program, shape_of
from lmlab.training.state import State

NUMBERS = "numbers"
"""Where the state of a step that is compiled for several trials has what they differ in."""

_MAY_DIFFER = ("model", "adapter", "loss", "optimizer", "updates", "clip_norm", "ema", "seed")
"""The parts of an experiment whose numbers decide values of a step, and no shape."""

_OF_THE_MODEL = ("model", "adapter", "loss")
"""Those of them of which the network consists: a loss may bring a head or a teacher."""


def shape_hash(spec: Spec) -> str:
    """12 hexadecimal digits, equal for experiments that differ in numbers alone."""
    return spec_hash(with_values(spec, dict.fromkeys(numbers_of(spec), 0.0)))


def numbers_of(spec: Spec) -> dict[str, float]:
    """The numbers of an experiment that may be inputs of its step: path -> number."""
    found: dict[str, float] = {}
    for part in _MAY_DIFFER:
        _collect(spec.kwargs.get(part), part, found)
    return found


def _collect(value: Value, path: str, found: dict[str, float]) -> None:
    match value:
        case Spec() | FrozenDict():
            items = value.kwargs if isinstance(value, Spec) else value
            for key, item in items.items():
                _collect(item, f"{path}.{key}", found)
        case tuple():
            for index, item in enumerate(value):
                _collect(item, f"{path}.{index}", found)
        case float():
            found[path] = value
        case int() if path == "seed":
            found[path] = value


def differing(specs: Sequence[Spec]) -> tuple[str, ...]:
    """The paths of the numbers in which experiments of one shape differ."""
    each = [numbers_of(spec) for spec in specs]
    return tuple(path for path in each[0] if len({numbers[path] for numbers in each}) > 1)


Numbers = Mapping[str, jax.Array]
"""By path: what a trial differs in from others of its group."""
Step = Callable[[Numbers, State, Mapping[str, jax.Array]], tuple[State, jax.Array]]


class Together:
    """What the trials of a group share: the program of a training step, compiled when the first of them asks for it.

    Args:
      paths: the numbers in which they differ.
      shelf: where their data are, if other groups read them too.

    Attributes:
      shelf: the data that were opened.
      compiled: how often the step was compiled.
    """

    def __init__(self, paths: Sequence[str], shelf: Shelf | None = None) -> None:
        self._paths = tuple(paths)
        self.shelf = Shelf() if shelf is None else shelf
        self._dispatch: Dispatch | None = None
        self._initializer: Callable[[Any], State] | None = None
        self._model: ModelDef[Any] | None = None
        self._abstract: State | None = None
        self.compiled = 0

    def make(self, resolved: Resolved, **given: Any) -> Program:
        """The program of one of the trials."""
        return Member(self, resolved, **given)

    def model(self, define: Callable[[], ModelDef[Any]]) -> ModelDef[Any]:
        """The network, defined by the first trial for all; by each for itself, where they differ in numbers of it."""
        if any(path.startswith(_OF_THE_MODEL) for path in self._paths):
            return define()
        if self._model is None:
            self._model = define()
        return self._model

    def numbers(self, member: Program) -> dict[str, jax.Array]:
        """What one of the trials gives to a step that all share."""
        own = numbers_of(member.spec)
        return {path: jnp.asarray(own[path], _dtype(path)) for path in self._paths}

    def abstract_state(self, make: Callable[[], State]) -> State:
        """The shapes of the state, which all share; made by the first trial."""
        if self._abstract is None:
            self._abstract = make()
        return self._abstract

    def first_state(self, member: Program) -> State:
        """The state of one of the trials before its first step, by a program that all share."""
        given = self.numbers(member), member.key
        if self._initializer is None:

            def make_state(given: tuple[Numbers, jax.Array]) -> State:
                numbers, key = given
                return member.at(_as_numbers(numbers)).init(key)

            self._initializer = member.partitioner.initializer(make_state, given)
        return self._initializer(given)

    def dispatch(self, member: Program) -> Dispatch:
        """The compiled step with the numbers of one of the trials."""
        if self._dispatch is None:
            self._dispatch = self._compile(member)
            self.compiled += 1
        call, names = self._dispatch.call, self._dispatch.names
        held = member.partitioner.load(self.numbers(member))

        def step(state: State, batch: Mapping[str, jax.Array]) -> tuple[State, jax.Array]:
            nonlocal held
            given = state._replace(model_state={**state.model_state, NUMBERS: held})
            new, metrics = call(given, batch)
            held = new.model_state[NUMBERS]
            return _without(new), metrics

        return Dispatch(step, names)

    def step(self, member: Program) -> tuple[Step, list[str]]:
        """The step of all trials, not compiled yet: `(numbers, state, batch) -> (state, metrics)`.

        Also the names of the metrics, which are there once it was traced.
        """
        names: list[str] = []

        def step(numbers: Numbers, state: State, batch: Mapping[str, jax.Array]) -> tuple[State, jax.Array]:
            new, metrics = member.at(_as_numbers(numbers)).step(state, batch)
            names[:] = metrics
            return new, jnp.stack([jnp.stack(pair) for pair in metrics.values()])

        return step, names

    def _compile(self, member: Program) -> Dispatch:
        step, names = self.step(member)

        def train_step(state: State, batch: Mapping[str, jax.Array]) -> tuple[State, jax.Array]:
            held = state.model_state[NUMBERS]
            new, metrics = step(held, _without(state), batch)
            return new._replace(model_state={**new.model_state, NUMBERS: held}), metrics

        state = member.abstract_state
        numbers = {path: jax.ShapeDtypeStruct((), _dtype(path)) for path in self._paths}
        state = state._replace(model_state={**state.model_state, NUMBERS: numbers})
        widths = member.data.train.widths or (None,)
        compiled = {
            shape_of(member.abstract_batches(width)): member.compile_for(train_step, state, width) for width in widths
        }
        return Dispatch(lambda state, batch: compiled[shape_of(batch)](state, batch), tuple(names))


class Member(Program):
    """The program of a trial that shares its step and its data with others."""

    def __init__(self, group: Together, resolved: Resolved, **given: Any) -> None:
        self.group = group
        super().__init__(resolved, **given)

    def _open_data(self, saved_tokenizer: Mapping[str, Any] | None) -> Data | JointData:
        return self.group.shelf.open(self, saved_tokenizer)

    def _define_model(self) -> ModelDef[Any]:
        return self.group.model(super()._define_model)

    @cached_property
    def abstract_state(self) -> State:
        """See `Program.abstract_state`."""
        return self.group.abstract_state(lambda: self.partitioner.abstract(self.init, self.key))

    def init_state(self) -> State:
        """See `Program.init_state`."""
        try:
            return self.group.first_state(self)
        except (TypeError, LmlabError):  # see `compile_dispatch`, which says it
            return super().init_state()

    def compile_dispatch(self) -> Dispatch:
        """See `Program.compile_dispatch`; where a number cannot be an input of the step, one of the trial's own."""
        if self.partitioner.axis_name is not None:
            return super().compile_dispatch()
        try:
            return self.shared_dispatch()
        except (TypeError, LmlabError) as error:  # of jax: a tracer that Python has to know the value of
            say(f"this trial's step is compiled for itself: {str(error).strip().splitlines()[0]}")
            return super().compile_dispatch()

    def shared_dispatch(self) -> Dispatch:
        """The step that it shares, with its own numbers.

        Raises:
          TypeError, LmlabError: it cannot be shared.
        """
        return self.group.dispatch(self)


def _without(state: State) -> State:
    return state._replace(model_state={key: value for key, value in state.model_state.items() if key != NUMBERS})


def _dtype(path: str) -> Any:
    return jnp.uint32 if path == "seed" else jnp.float32


def _as_numbers(numbers: Numbers) -> dict[str, jax.Array]:
    """As Python numbers take part in arithmetic: without deciding the dtype of what they are multiplied by."""
    return {
        path: value if path == "seed" else jax.lax.convert_element_type(value, float) for path, value in numbers.items()
    }
