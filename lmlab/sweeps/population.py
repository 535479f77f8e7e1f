"""Several trials in one process, which take turns after each step, or are stepped at once over a new leading axis.

Each is an ordinary session with a folder of its own: batches, records, evaluations and checkpoints are its own.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.sharding import NamedSharding, PartitionSpec

from lmlab.config import Resolved
from lmlab.errors import ConfigError
from lmlab.parallel.compiling import compile_for_speed
from lmlab.sweeps.together import Member, Numbers, Together
from lmlab.training.program import Dispatch, Program, many_steps
from lmlab.training.session import Session
from lmlab.training.state import State

Name = TypeVar("Name")
Batch = Mapping[str, Array]
Outcome = Exception | None
"""What a session failed by, Interrupted included; None where it came to its end."""

POPULATION = "population"
"""The mesh axis that the members of a population lie over."""


def take_turns(
    sessions: Mapping[Name, Session], before: Callable[[Mapping[Name, Batch]], None] = lambda batches: None
) -> Iterator[tuple[Name, Outcome]]:
    """Does a step of each session in turn until all have ended; gives the name of each as it ends, and how.

    Args:
      sessions: by name, before their first step.
      before: called before the steps of a round with the batches that they read.
    """
    left = {name: session.turns() for name, session in sessions.items()}
    while left:
        batches: dict[Name, Batch] = {}
        for name, turns in list(left.items()):
            try:
                batches[name] = next(turns)
            except StopIteration:
                del left[name]
                yield name, None
            except Exception as error:
                del left[name]
                yield name, error
        if batches:
            before(batches)


class Lanes:
    """Places for trials of a group that are stepped by one program, whose arrays have the places as their first axis.

    A place whose trial has ended, or never began, is computed in vain: the others do not notice it, whatever is in it.
    Where there are several devices, the places lie over as many of them as divide their number.

    Args:
      group: of the trials.
      places: how many; at least 1.
    """

    def __init__(self, group: Together, places: int) -> None:
        self._group = group
        self._places = places
        self._members: list[Member] = []
        self._why_not: Exception | None = None
        self._compiled: AtOnce | None = None

    def make(self, resolved: Resolved, **given: Any) -> Program:
        """The program of one of the trials: see `Together.make`."""
        return _Laned(self, self._group, resolved, **given)

    def train(self, sessions: Mapping[Name, Session]) -> Iterator[tuple[Name, Outcome]]:
        """Trains sessions whose programs are from here; as `take_turns`."""
        if self._compiled is None:  # the step cannot be shared: each has its own
            yield from take_turns(sessions)
            return
        lane = {name: self._members.index(session.program) for name, session in sessions.items()}  # type: ignore[arg-type]
        self._compiled.fill(self._members, {lane[name]: session.state for name, session in sessions.items()})
        compiled = self._compiled
        yield from take_turns(
            sessions, lambda batches: compiled.step({lane[name]: batch for name, batch in batches.items()})
        )

    def dispatch(self, member: Member) -> Dispatch:
        """A trial's part of the common step, which is compiled for the first of them.

        Raises:
          TypeError, LmlabError: it cannot be common.
        """
        if self._why_not is not None:
            raise self._why_not
        try:
            self._compiled = self._compiled or AtOnce(self._group, member, self._places)
        except (TypeError, ConfigError) as error:
            self._why_not = error
            raise
        lane, compiled = len(self._members), self._compiled
        self._members.append(member)
        return Dispatch(lambda state, batch: compiled.result(lane), compiled.names)


class _Laned(Member):
    """The program of a trial that is stepped with others at once."""

    def __init__(self, lanes: Lanes, group: Together, resolved: Resolved, **given: Any) -> None:
        super().__init__(group, resolved, **given)
        self._lanes = lanes

    def shared_dispatch(self) -> Dispatch:
        """See `Member.shared_dispatch`."""
        return self._lanes.dispatch(self)


class AtOnce:
    """The program that steps all places, and what is in them.

    Args:
      group: of the trials.
      member: one of them.
      places: how many.

    Attributes:
      names: the metrics.
    """

    def __init__(self, group: Together, member: Member, places: int) -> None:
        if member.data.train.widths:
            raise ConfigError("its batches have several widths, which are no one array together.")
        self._group = group
        self._places = places
        of_members, every = _layouts(member, places)
        step, names = group.step(member)

        def one(numbers: Numbers, state: State, batch: Batch) -> tuple[State, Array]:
            def many(state: State, batch: Batch) -> tuple[State, Array]:
                return step(numbers, state, batch)

            return (many_steps(many) if member.leading else many)(state, batch)

        def all_of_them(states: State, numbers: Numbers, batches: Sequence[Batch]) -> tuple[State, tuple[Array, ...]]:
            states, metrics = jax.vmap(one)(numbers, states, _stacked(batches))
            return states, tuple(metrics[place] for place in range(places))

        program = jax.jit(
            all_of_them,
            in_shardings=(of_members, of_members, every),
            out_shardings=(of_members, every),
            donate_argnums=0,
        )
        shapes = [jax.eval_shape(_stacked, [tree] * places) for tree in (member.abstract_state, group.numbers(member))]
        self._program = compile_for_speed(program.lower(*shapes, [member.abstract_batches()] * places))
        self._stack = jax.jit(_stacked, out_shardings=of_members)
        self._take = jax.jit(lambda states, place: jax.tree.map(lambda leaf: leaf[place], states), out_shardings=every)
        self._every = every
        self._home = jax.tree.map(lambda leaf: leaf.sharding, member.abstract_state)
        self._batches: dict[int, Batch] = {}
        self._metrics: tuple[Array, ...] = ()
        self.names = names

    def fill(self, members: Sequence[Member], states: Mapping[int, State]) -> None:
        """Puts trials into their places; a place without one gets what another has."""
        some = next(iter(states))
        filled = [place if place in states else some for place in range(self._places)]
        self._states = self._stack(jax.device_put([states[place] for place in filled], self._every))
        self._numbers = self._stack([self._group.numbers(members[place]) for place in filled])
        self._some = some

    def step(self, batches: Mapping[int, Batch]) -> None:
        """One dispatch of all places; those that read nothing more read again what they have read last."""
        self._batches |= {place: jax.device_put(dict(batch), self._every) for place, batch in batches.items()}
        read = [self._batches.get(place, self._batches[self._some]) for place in range(self._places)]
        self._states, self._metrics = self._program(self._states, self._numbers, read)

    def result(self, place: int) -> tuple[Callable[[], State], Array]:
        """What a step has made of a place: its state, if it is asked for before the next step, and its metrics."""
        return lambda: jax.device_put(self._take(self._states, place), self._home), self._metrics[place]


def _stacked(trees: Sequence[Any]) -> Any:
    return jax.tree.map(lambda *leaves: jnp.stack(leaves), *trees)


def _layouts(member: Program, places: int) -> tuple[NamedSharding, NamedSharding]:
    """How arrays lie that have the places as their first axis, and those that all devices have whole."""
    found = jax.tree.leaves(member.abstract_state)[0].sharding.device_set
    most = max(number for number in range(1, len(found) + 1) if places % number == 0)
    devices = sorted(found, key=lambda device: device.id)[:most]
    mesh = jax.sharding.Mesh(np.asarray(devices), (POPULATION,))
    return NamedSharding(mesh, PartitionSpec(POPULATION)), NamedSharding(mesh, PartitionSpec())
