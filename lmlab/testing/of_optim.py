"""Laws of optimizers and schedules."""

from __future__ import annotations

from typing import Any
from unittest import SkipTest

import jax
import jax.numpy as jnp
import numpy as np
import optax

from lmlab.config import build
from lmlab.contracts import FrozenDict, Spec
from lmlab.nn.functional import ROLES
from lmlab.testing.tiny import Tiny

STEPS = 10
SHAPES = {"kernel": (2, 5, 3), "bias": (3,), "scale": (5,), "embedding": (7, 5), "position": (11, 5)}
"""A parameter of every role, by path; the path is the role."""


def descends_a_bowl(tiny: Tiny) -> None:
    """On half the squared distance to a point, ten steps lead nearer to it, for parameters of every role."""
    if hasattr(tiny.component, "LOSSES"):
        raise SkipTest("it serves certain losses only, which a bowl is none of")
    target = {path: jnp.full(shape, 0.5) for path, shape in SHAPES.items()}
    before, after = _distances(_trained(_built(tiny.alone().spec), target), target)
    worse = [path for path in SHAPES if not after[path] < before[path]]
    assert not worse, f"{tiny.entry.name} did not move {', '.join(worse)} towards the minimum"


def keeps_shapes_and_dtypes(tiny: Tiny) -> None:
    """Updates and state have the same shapes and dtypes at every step, so that a step can be scanned and saved."""
    rule = optax.with_extra_args_support(_built(tiny.alone().spec).transformation({path: path for path in SHAPES}))
    params = _params()
    state = rule.init(params)
    updates, after = rule.update(params, state, params, step=jnp.zeros((), jnp.int32))
    assert jax.tree.map(_facts, updates) == jax.tree.map(_facts, params)
    assert jax.tree.map(_facts, after) == jax.tree.map(_facts, state)
    arrays = jax.tree.leaves(state)
    assert all(isinstance(leaf, jax.Array) for leaf in arrays), "its state holds something that is no array"


def stays_finite_without_a_gradient(tiny: Tiny) -> None:
    """A gradient of zero gives a finite update."""
    rule = optax.with_extra_args_support(_built(tiny.alone().spec).transformation({path: path for path in SHAPES}))
    params, zeros = _params(), jax.tree.map(jnp.zeros_like, _params())
    updates, state = rule.update(zeros, rule.init(params), params, step=jnp.zeros((), jnp.int32))
    assert all(jnp.isfinite(leaf).all() for leaf in jax.tree.leaves((updates, state)))


def takes_traced_numbers(tiny: Tiny) -> None:
    """Every float of its configuration may be a tracer, so that runs that differ in numbers are one program."""
    spec = tiny.alone().spec
    target = {path: jnp.full(shape, 0.5) for path, shape in SHAPES.items()}
    numbers = _floats(spec)
    traced = jax.jit(lambda given: _trained(_built(spec, given), target))(numbers)
    for path, value in _trained(_built(spec), target).items():
        np.testing.assert_allclose(traced[path], value, rtol=2e-5, atol=1e-6, err_msg=path)


def _built(spec: Spec, numbers: dict[str, Any] | None = None) -> Any:
    return build(Spec(spec.kind, spec.name, FrozenDict({**spec.kwargs, **(numbers or {})})), steps=STEPS)


def _floats(spec: Spec) -> dict[str, Any]:
    return {name: value for name, value in spec.kwargs.items() if isinstance(value, float)}


def _params() -> dict[str, jax.Array]:
    assert SHAPES.keys() == set(ROLES)
    draw = np.random.default_rng(11)
    return {path: jnp.asarray(2 + draw.random(shape), jnp.float32) for path, shape in SHAPES.items()}


def _trained(optimizer: Any, target: dict[str, jax.Array]) -> dict[str, jax.Array]:
    rule = optax.with_extra_args_support(optimizer.transformation({path: path for path in SHAPES}))

    def step(carry: Any, number: jax.Array) -> tuple[Any, None]:
        params, state = carry
        updates, state = rule.update({p: params[p] - target[p] for p in params}, state, params, step=number)
        return (optax.apply_updates(params, updates), state), None

    params = _params()
    return jax.lax.scan(step, (params, rule.init(params)), jnp.arange(STEPS))[0][0]


def _distances(params: dict[str, jax.Array], target: dict[str, jax.Array]) -> tuple[dict[str, Any], dict[str, Any]]:
    start = _params()
    return tuple({p: float(jnp.linalg.norm(x[p] - target[p])) for p in SHAPES} for x in (start, params))  # type: ignore


def _facts(leaf: jax.Array) -> tuple[tuple[int, ...], str]:
    return tuple(leaf.shape), str(leaf.dtype)


def is_finite_and_float32(tiny: Tiny) -> None:
    """A finite float32 scalar at every step of the run and beyond its end, never negative."""
    schedule = _built(tiny.alone().spec)
    values = [schedule(jnp.asarray(step, jnp.int32)) for step in range(STEPS + 3)]
    assert all(value.shape == () and value.dtype == jnp.float32 for value in values)
    assert all(np.isfinite(value) and value >= 0 for value in values), [float(value) for value in values]


def depends_on_the_step_alone(tiny: Tiny) -> None:
    """The same with and without jit, for all steps at once and for each alone."""
    schedule = _built(tiny.alone().spec)
    steps = jnp.arange(STEPS, dtype=jnp.int32)
    alone = [float(schedule(step)) for step in steps]
    np.testing.assert_allclose(jax.jit(jax.vmap(schedule))(steps), alone, rtol=1e-5, atol=1e-9)


def may_be_traced(tiny: Tiny) -> None:
    """Every number of its configuration may be a tracer: floats, and integers that count steps."""
    spec = tiny.alone().spec
    numbers = {k: v for k, v in spec.kwargs.items() if isinstance(v, int | float) and not isinstance(v, bool)}
    step = jnp.asarray(STEPS // 2, jnp.int32)
    traced = jax.jit(lambda given: _built(spec, given)(step))(numbers)
    np.testing.assert_allclose(traced, _built(spec)(step), rtol=1e-5)


OPTIMIZER_LAWS = (descends_a_bowl, keeps_shapes_and_dtypes, stays_finite_without_a_gradient, takes_traced_numbers)
SCHEDULE_LAWS = (is_finite_and_float32, depends_on_the_step_alone, may_be_traced)
