"""What a run's model computes for those who use it: functions of arrays, of any batch and any length.

A causal model begins a cache, reads prompts into it and goes on token by token, or scores whole texts; an encoder
reads texts; an encoder-decoder reads sources and goes on with targets. Parameters of a stack are apart, block by block,
as are the parts of a cache: on a CPU a step would cut them out of the whole again and again.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, export
from jaxtyping import Float, Int

from lmlab.contracts import CausalLM, CountedLM, EncoderDecoder, PooledEncoder, TokenEncoder
from lmlab.errors import ConfigError
from lmlab.generation.caches import empty_for_steps, read
from lmlab.generation.writing import positions
from lmlab.nn.functional import ModelDef
from lmlab.training.program import TEACHER, Program

IDLE = (TEACHER, "task_head/")
"""Parameters of a run that the model itself does not read: a teacher's, and the last layer that a loss brings."""

Named = dict[str, Any]


@dataclass(frozen=True)
class Function:
    """One of the functions.

    Attributes:
      name: what it is called.
      call: `(parameters, *arguments) -> results`.
      arguments: what it takes behind the parameters, by name: trees of shapes, whose sizes may be symbols.
      results: what it gives, by name; several are a tuple.
    """

    name: str
    call: Callable[..., Any]
    arguments: Mapping[str, Any]
    results: tuple[str, ...]


class Inference:
    """The functions of a run's model, which take parameters, caches and memories as dicts of arrays by name.

    Args:
      program: of the run.

    Attributes:
      longest: tokens that the model has positions for; None where there is no end.
      left_out: paths of parameters that these functions do not read.
      functions: in the order in which they are used.

    Raises:
      ConfigError: there is no such function of the model.
    """

    def __init__(self, program: Program) -> None:
        self._model: ModelDef[Any] = program.model
        self.longest = positions(self._model)
        self.left_out = tuple(path for path in self._model.shapes if path.startswith(IDLE))
        read = {path: shape for path, shape in self._model.shapes.items() if path not in self.left_out}
        self._shapes = jax.eval_shape(self._model.apart, read)
        abstract, name = program.abstract_model, program.experiment.model.name
        makers: tuple[tuple[type, Callable[[], list[Function]]], ...] = (
            (CausalLM, self._causal), (TokenEncoder, self._encoder), (EncoderDecoder, self._encoder_decoder),
        )  # fmt: skip
        make = next((make for kind, make in makers if isinstance(abstract, kind)), None)
        if make is None or isinstance(abstract, CountedLM):
            raise ConfigError(
                f"what can be exported is a CausalLM that learns by gradient, a TokenEncoder or an EncoderDecoder; the "
                f"model '{name}' is none of them."
            )
        self._by_token, self._pools = False, isinstance(abstract, PooledEncoder)
        self.functions = [self._by_name(function) for function in make()]

    @property
    def shapes(self) -> Named:
        """Of the parameters, as the functions take them."""
        return named(self._shapes)

    def parameters(self, params: Mapping[str, Array]) -> Named:
        """A run's parameters, path -> array, as the functions take them."""
        apart = jax.jit(self._model.apart)
        return named(apart({path: value for path, value in params.items() if path not in self.left_out}))

    def _by_name(self, function: Function) -> Function:
        """The function with each tree in its place a dict by name; an argument or result that is one array stays so."""
        specs = (self._shapes, *function.arguments.values())

        def call(*given: Any) -> Any:
            trees = (_tree(spec, value) for spec, value in zip(specs, given, strict=True))
            results = function.call(*trees)
            return tuple(map(_named, results)) if len(function.results) > 1 else _named(results)

        arguments = {name: _named(spec) for name, spec in function.arguments.items()}
        return Function(function.name, call, arguments, function.results)

    def _bind(self, params: Mapping[str, Any]) -> Any:
        return self._model.bind(self._whole(params))

    def _whole(self, params: Mapping[str, Any]) -> dict[str, Any]:
        idle = {path: self._model.shapes[path] for path in self.left_out}
        return {**params, **{path: jnp.zeros(shape.shape, shape.dtype) for path, shape in idle.items()}}

    def _sizes(self, names: str, *constraints: str) -> tuple[Any, ...]:
        """Symbols of these sizes, of which those of time end where the model's positions do."""
        limits = [] if self.longest is None else [f"{name} <= {self.longest}" for name in names.split(", ")[1:]]
        return tuple(export.symbolic_shape(names, constraints=[*constraints, *limits]))

    def _causal(self) -> list[Function]:
        batch, slots = self._sizes("batch, slots")
        begin = Function("begin", self._begin, {"room": _ids(batch, slots)}, ("cache",))
        cache = jax.eval_shape(self._begin, self._shapes, _ids(batch, slots))
        step = Function("step", self._step, {"cache": cache, "tokens": _ids(batch)}, ("logits", "cache"))
        slotted = any("slots" in str(size) for leaf in jax.tree.leaves(cache) for size in leaf.shape)
        batch, time, slots = self._sizes("batch, time, slots", *["slots >= time"] * slotted)
        cache = jax.eval_shape(self._begin, self._shapes, _ids(batch, slots))
        prompts = {"cache": cache, "tokens": _ids(batch, time), "lengths": _ids(batch)}
        prefill = Function("prefill", self._prefill, prompts, ("logits", "cache"))
        try:
            jax.eval_shape(self._prefill, self._shapes, *prompts.values())
        except jax.errors.InconclusiveDimensionOperation:  # what it computes for many tokens depends on their number
            self._by_token = True
        score = Function("score", self._score, {"tokens": _ids(*self._sizes("batch, time"))}, ("logits",))
        return [begin, prefill, step, score]

    def _begin(self, params: Mapping[str, Any], room: Int[Array, "B S"]) -> Any:
        """A cache for B rows of at most S tokens, which has read nothing; what stands in `room` is not looked at."""
        return empty_for_steps(self._model, self._whole(params), None, *room.shape)

    def _prefill(
        self, params: Mapping[str, Any], cache: Any, tokens: Int[Array, "B T"], lengths: Int[Array, " B"]
    ) -> tuple[Float[Array, "B V"], Any]:
        """The logits after each row's first `lengths` tokens, and the cache that has read them."""
        model = self._bind(params)
        there = (jnp.arange(tokens.shape[1]) < lengths[:, None]).astype(jnp.int32)
        states, cache = self._read(model, tokens, there, cache)
        last = jnp.take_along_axis(states, (lengths - 1)[:, None, None], axis=1)[:, 0]
        return model.project(last), cache

    def _step(self, params: Mapping[str, Any], cache: Any, tokens: Int[Array, " B"]) -> tuple[Float[Array, "B V"], Any]:
        """The logits after one token more in each row, and the cache that has read it."""
        model = self._bind(params)
        states, cache = model.hidden(tokens[:, None], cache=cache)
        return model.project(states[:, 0]), cache

    def _score(self, params: Mapping[str, Any], tokens: Int[Array, "B T"]) -> Float[Array, "B T V"]:
        """The logits after each token."""
        model = self._bind(params)
        return model.project(self._read(model, tokens, jnp.ones_like(tokens), self._begin(params, tokens))[0])

    def _read(
        self, model: Any, tokens: Int[Array, "B T"], there: Int[Array, "B T"], cache: Any
    ) -> tuple[Float[Array, "B T D"], Any]:
        """States after each token, and the cache that has read those that are there: at once, or one by one."""
        if not self._by_token:
            return model.hidden(tokens, segment_ids=there, cache=cache)

        def one(cache: Any, at: tuple[Array, Array]) -> tuple[Any, Array]:
            token, here = at
            state, cache = model.hidden(token[:, None], segment_ids=here[:, None], cache=cache)
            return cache, state[:, 0]

        cache, states = jax.lax.scan(one, cache, (tokens.T, there.T))
        return states.swapaxes(0, 1), cache

    def _encoder(self) -> list[Function]:
        shape = _ids(*self._sizes("batch, time"))
        results = ("states", "logits", "pooled") if self._pools else ("states", "logits")
        return [Function("encode", self._encode, {"tokens": shape, "segments": shape, "types": shape}, results)]

    def _encode(
        self,
        params: Mapping[str, Any],
        tokens: Int[Array, "B T"],
        segments: Int[Array, "B T"],
        types: Int[Array, "B T"],
    ) -> tuple[Array, ...]:
        """States, logits of the token at each position, and one vector for each row where the model makes one."""
        model = self._bind(params)
        states = model.encode(tokens, segment_ids=segments, type_ids=types)
        read = states, model.project(states)
        return (*read, model.pool(states, segment_ids=segments)) if self._pools else read

    def _encoder_decoder(self) -> list[Function]:
        batch, source, slots = self._sizes("batch, source, slots")
        sources = {"tokens": _ids(batch, source), "segments": _ids(batch, source)}
        memory = jax.eval_shape(self._read_source, self._shapes, *sources.values())
        room = _ids(batch, slots)
        cache = jax.eval_shape(self._begin_target, self._shapes, memory, room)
        step = {"memory": memory, "cache": cache, "tokens": _ids(batch)}
        return [
            Function("read_source", self._read_source, sources, ("memory",)),
            Function("begin", self._begin_target, {"memory": memory, "room": room}, ("cache",)),
            Function("step", self._step_target, step, ("logits", "cache")),
        ]

    def _read_source(self, params: Mapping[str, Any], tokens: Array, segments: Array) -> Any:
        """What the decoder is told of each source; `segments` are 0 behind its end."""
        return self._bind(params).encode_source(tokens, segment_ids=segments)

    def _begin_target(self, params: Mapping[str, Any], memory: Any, room: Int[Array, "B S"]) -> Any:
        return empty_for_steps(self._model, self._whole(params), memory, *room.shape)

    def _step_target(
        self, params: Mapping[str, Any], memory: Any, cache: Any, tokens: Int[Array, " B"]
    ) -> tuple[Float[Array, "B V"], Any]:
        model = self._bind(params)
        states, cache = read(model, memory, tokens[:, None], cache)
        return model.project(states[:, 0]), cache


def named(tree: Any) -> Named:
    """The leaves of a tree by the way to them: {"k/0": ..., "k/1": ..., "length": ...}."""
    leaves, _ = jax.tree_util.tree_flatten_with_path(tree)
    return {jax.tree_util.keystr(path, simple=True, separator="/"): leaf for path, leaf in leaves}


def _named(tree: Any) -> Any:
    return tree if hasattr(tree, "shape") and jax.tree_util.all_leaves([tree]) else named(tree)


def _tree(spec: Any, value: Any) -> Any:
    """What `_named` made a dict of, as it was."""
    if not isinstance(value, Mapping):
        return value
    return jax.tree.unflatten(jax.tree.structure(spec), [value[name] for name in named(spec)])


def _ids(*sizes: Any) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(sizes, np.int32)
