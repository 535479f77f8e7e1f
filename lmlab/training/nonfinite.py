"""Where a NaN or an infinity comes from: a function is run operation by operation, and each is watched.

An infinity that was written down on purpose, as in an attention mask, is no fault; a NaN is one wherever it appears
first, and an infinity where finite numbers became one. The fault behind a result is followed back through what
passed it on, so that an infinity that was masked away again is not blamed.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend import core, source_info_util


@dataclass(frozen=True)
class Fault:
    """An operation that made a NaN or an infinity out of numbers that had none.

    Attributes:
      order: how many operations were run before it.
      primitive: the operation, such as `log`.
      place: `file:line:column (function)` of the code that asked for it.
      kind: `nan` or `inf`.
      cause: the fault that made the infinity which this operation turned into a NaN, if any.
    """

    order: int
    primitive: str
    place: str
    kind: str
    cause: Fault | None = None

    @property
    def first(self) -> Fault:
        """The fault at the beginning of the chain."""
        return self if self.cause is None else self.cause.first

    def __str__(self) -> str:
        return f"{self.primitive} gives {self.kind}, at {self.place}"


class Watched(NamedTuple):
    """A value, and the fault behind what is not finite in it (None: nothing, or it was given so)."""

    value: Any
    fault: Fault | None = None

    @property
    def nan(self) -> bool:
        """Whether it holds a NaN."""
        return _is_float(self.value) and bool(jnp.isnan(self.value).any())

    @property
    def finite(self) -> bool:
        """Whether all of it is finite."""
        return not _is_float(self.value) or bool(jnp.isfinite(self.value).all())


def watch(function: Callable[..., Any], *args: Any) -> Any:
    """`function(*args)` with `Watched` in place of every array of the result.

    Operations run one by one, not compiled together; loops and branches are entered only where something in them
    is not finite.
    """
    closed, shape = jax.make_jaxpr(function, return_shape=True)(*args)
    values = [Watched(value) for value in jax.tree.leaves(args)]
    found = _Watcher().run(closed.jaxpr, [Watched(value) for value in closed.consts], values)
    return jax.tree.unflatten(jax.tree.structure(shape), found)


class _Watcher:
    def __init__(self) -> None:
        self._order = 0

    def run(self, jaxpr: Any, consts: Sequence[Watched], args: Sequence[Watched]) -> list[Watched]:
        known: dict[Any, Watched] = dict(zip(jaxpr.constvars, consts, strict=True))
        known.update(zip(jaxpr.invars, args, strict=True))

        def read(variable: Any) -> Watched:
            return Watched(variable.val) if isinstance(variable, core.Literal) else known[variable]

        for equation in jaxpr.eqns:
            known.update(zip(equation.outvars, self._run(equation, [*map(read, equation.invars)]), strict=True))
        return [read(variable) for variable in jaxpr.outvars]

    def _run(self, equation: Any, args: Sequence[Watched]) -> list[Watched]:
        values = _bind(equation, [arg.value for arg in args])
        self._order += 1
        watched = [Watched(value) for value in values]
        if all(one.finite for one in watched):
            return watched
        inner = self._enter(equation, args)
        if inner is None:
            return [self._judge(one, equation, args) for one in watched]
        return [
            out if out.finite else Watched(out.value, found.fault or self._judge(out, equation, args).fault)
            for out, found in zip(watched, inner, strict=True)
        ]

    def _judge(self, out: Watched, equation: Any, args: Sequence[Watched]) -> Watched:
        """The output with the fault behind it: an argument's, or this operation itself."""
        if out.finite:
            return out
        kind = "nan" if out.nan else "inf"
        guilty = [arg for arg in args if (arg.nan if kind == "nan" else not arg.finite)]
        if guilty:  # it only passes on what it was given
            return Watched(out.value, _earliest(guilty))
        cause = _earliest([arg for arg in args if not arg.finite])
        place = source_info_util.summarize(equation.source_info)
        return Watched(out.value, Fault(self._order, equation.primitive.name, place, kind, cause))

    def _enter(self, equation: Any, args: Sequence[Watched]) -> list[Watched] | None:
        """The outputs found by running what is inside an operation; None for one that holds no others."""
        parameters = equation.params
        match equation.primitive.name:
            case "scan":
                return self._scan(parameters, args)
            case "while":
                return self._while(parameters, args)
            case "cond":
                index = int(np.clip(args[0].value, 0, len(parameters["branches"]) - 1))
                return self._call(parameters["branches"][index], args[1:])
        for name in ("jaxpr", "call_jaxpr", "fun_jaxpr"):
            if name in parameters:
                return self._call(parameters[name], args)
        return None

    def _call(self, jaxpr: Any, args: Sequence[Watched]) -> list[Watched]:
        consts = [Watched(value) for value in getattr(jaxpr, "consts", ())]
        return self.run(getattr(jaxpr, "jaxpr", jaxpr), consts, args)

    def _scan(self, parameters: Any, args: Sequence[Watched]) -> list[Watched]:
        consts, carry, columns = _scan_arguments(parameters, args)
        length, outputs = parameters["length"], []
        order = range(length - 1, -1, -1) if parameters["reverse"] else range(length)
        for index in order:
            row = [Watched(column.value[index], column.fault) for column in columns]
            out = self._call(parameters["jaxpr"], [*consts, *carry, *row])
            carry, ys = out[: len(carry)], out[len(carry) :]
            outputs.append(ys)
        if parameters["reverse"]:
            outputs.reverse()
        stacked = [
            Watched(jnp.stack([one.value for one in column]), _earliest(column))
            for column in zip(*outputs, strict=True)
        ]
        return [*carry, *stacked]

    def _while(self, parameters: Any, args: Sequence[Watched]) -> list[Watched]:
        first, second = parameters["cond_nconsts"], parameters["cond_nconsts"] + parameters["body_nconsts"]
        asked, body, carry = args[:first], args[first:second], list(args[second:])
        while bool(self._call(parameters["cond_jaxpr"], [*asked, *carry])[0].value):
            carry = self._call(parameters["body_jaxpr"], [*body, *carry])
        return carry


def _bind(equation: Any, values: list[Any]) -> list[Any]:
    found = equation.primitive.bind(*values, **equation.primitive.get_bind_params(equation.params))
    return list(found) if equation.primitive.multiple_results else [found]


def _scan_arguments(parameters: Any, args: Sequence[Watched]) -> tuple[list[Watched], list[Watched], list[Watched]]:
    """A scan's constants, first carry and columns; jax says how many of each there are in two ways."""
    if "ft_in" in parameters:  # jax 0.11 and later
        consts, carry, _ = (len(list(group)) for group in parameters["ft_in"].update(list(args)).unpack())
    else:
        consts, carry = parameters["num_consts"], parameters["num_carry"]
    args = list(args)
    return args[:consts], args[consts : consts + carry], args[consts + carry :]


def _earliest(values: Sequence[Watched]) -> Fault | None:
    faults = [value.fault for value in values if value.fault is not None]
    return min(faults, key=lambda fault: fault.first.order, default=None)


def _is_float(value: Any) -> bool:
    return jnp.issubdtype(jnp.result_type(value), jnp.inexact)
