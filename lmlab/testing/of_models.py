"""Laws of models: what each capability promises.

Models that write from left to right, whatever they are told beside (a source, a latent vector), are held to the same
laws: see `Writing`.
"""

from __future__ import annotations

import functools
import queue
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, get_args
from unittest import SkipTest

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from lmlab.config import parameters
from lmlab.contracts import CausalLM, CountedLM, EncoderDecoder, LatentLM, TokenEncoder
from lmlab.generation.beam import BeamOptions, BeamSearch
from lmlab.generation.continuous import Engine, Request
from lmlab.generation.decoding import Decoder
from lmlab.generation.samplers import Greedy
from lmlab.generation.slots import Sampling, Slots
from lmlab.generation.writing import positions
from lmlab.nn.functional import ModelDef, Params
from lmlab.parallel.compiling import jit_once
from lmlab.testing.closeness import assert_close
from lmlab.testing.tiny import Tiny
from lmlab.training.program import Program

B, T, S = 3, 7, 5


class Writing(NamedTuple):
    """A model that writes from left to right, with what it is told beside already given.

    Attributes:
      read: `(tokens, *, segment_ids, cache, keys) -> (states, cache)`.
      begin: `length -> cache` for B rows.
    """

    read: Callable[..., Any]
    begin: Callable[[int], Any]

    @classmethod
    def of(cls, model: Any, rows: slice = slice(None)) -> Writing:
        """The left-to-right half of a model, for some of B rows; SkipTest where it has none."""
        if isinstance(model, CausalLM):
            count = len(range(B)[rows])
            return cls(model.hidden, lambda length: model.init_cache(count, length))
        if isinstance(model, EncoderDecoder):
            source = (jnp.arange(B * S).reshape(B, S) * 5 % 11)[rows]
            there = (jnp.arange(S) < jnp.array([[S], [S - 2], [1]])).astype(jnp.int32)[rows]
            memory = model.encode_source(source, segment_ids=there)
            return cls(
                lambda tokens, **given: model.decode(tokens, memory, **given),
                lambda length: model.init_decoding(memory, length),
            )
        if isinstance(model, LatentLM):
            tokens = (jnp.arange(B * S).reshape(B, S) * 5 % 11)[rows]
            latent = model.posterior(tokens).mean + jnp.linspace(-1, 1, B)[rows, None]
            count = len(latent)
            return cls(
                lambda tokens, **given: model.hidden_given(tokens, latent, **given),
                lambda length: model.init_cache(count, length),
            )
        raise SkipTest("it does not write from left to right")


def has_float32_logits(tiny: Tiny) -> None:
    """Whatever the compute dtype, states are (B, T, D), logits (B, T, V) in float32, and parameters float32."""
    for dtype in ("float32", "bfloat16"):
        program = tiny.program(compute_dtype=dtype)
        states, logits = jax.eval_shape(lambda p, program=program: _states_and_logits(program, p), program.model.shapes)
        assert states.shape[:2] == (B, T) and states.ndim == 3, f"states are {states}"
        assert logits.shape == (B, T, program.data.vocab) and logits.dtype == jnp.float32, f"logits are {logits}"
        if not _counts(program.model):
            assert {str(shape.dtype) for shape in program.model.shapes.values()} == {"float32"}


def starts_from_its_key(tiny: Tiny) -> None:
    """Initial parameters are a function of the key: equal for equal keys, others for another, finite."""
    model = tiny.program().model
    if _counts(model):
        raise SkipTest("it starts from nothing")
    init = jax.jit(model.init)
    one, same, other = init(jax.random.key(0)), init(jax.random.key(0)), init(jax.random.key(1))
    assert all(jnp.isfinite(value).all() for value in one.values())
    assert all(jnp.array_equal(one[path], same[path]) for path in one)
    assert any(not jnp.array_equal(one[path], other[path]) for path in one), "no parameter depends on the key"


def learns_in_every_parameter(tiny: Tiny) -> None:
    """The gradient of every loss that fits is finite, and that of some loss is not zero in every parameter."""
    unused: set[str] | None = None
    for loss in tiny.losses():
        program = tiny.program(loss=f"@{loss}")
        if _counts(program.model):
            raise SkipTest("it is not trained by gradient")
        gradient = gradients(program, moved(program.model))
        broken = [path for path, value in gradient.items() if not jnp.isfinite(value).all()]
        assert not broken, f"{loss}: not finite: {', '.join(broken)}"
        still = {path for path, value in gradient.items() if not jnp.any(value)}
        own = {path for path in still if path.startswith("task_head/")}
        assert not own, f"{loss}: no gradient reaches its own {', '.join(own)}"
        unused = still if unused is None else unused & still
        if not unused:
            return
    assert unused is not None, "no registered loss fits"
    raise AssertionError(f"no gradient reaches {', '.join(sorted(unused))}")


def is_the_same_without_jit(tiny: Tiny) -> None:
    """Compiled and op by op, the logits are the same."""
    program = tiny.program()
    params = moved(program.model)
    eager = _states_and_logits(program, params)
    assert_close(jax.jit(lambda p: _states_and_logits(program, p))(params), eager)


def never_looks_ahead(tiny: Tiny) -> None:
    """States before a changed token stay as they are, to the bit."""
    program = tiny.program()
    states = _written(program)
    tokens = _tokens(program)
    for place in (1, T - 2):
        changed = tokens.at[:, place:].set((tokens[:, place:] + 1) % program.data.vocab)
        np.testing.assert_array_equal(states(tokens)[:, :place], states(changed)[:, :place])


def reads_in_pieces_as_at_once(tiny: Tiny) -> None:
    """With a cache, reading 1, 2 and the remaining tokens gives the states of reading all."""
    program = tiny.program()
    params, tokens = moved(program.model), _tokens(program)

    @jax.jit
    def in_pieces(params: Params) -> Array:
        writing = Writing.of(program.model.bind(params))
        cache, parts = writing.begin(T), []
        for piece in jnp.split(tokens, [1, 3], axis=1):
            states, cache = writing.read(piece, cache=cache)
            parts.append(states)
        return jnp.concatenate(parts, axis=1)

    assert_close(in_pieces(params), _written(program)(tokens))


def sees_both_sides(tiny: Tiny) -> None:
    """In an encoder, every state depends on the first token and on the last one."""
    program = tiny.program()
    params, tokens = moved(program.model), _tokens(program)
    if not isinstance(program.abstract_model, TokenEncoder):
        raise SkipTest("not a TokenEncoder")
    states = jax.jit(lambda tokens: program.model.bind(params).encode(tokens))
    for place in (0, T - 1):
        changed = tokens.at[:, place].set((tokens[:, place] + 1) % program.data.vocab)
        differs = jnp.any(states(tokens) != states(changed), axis=-1)
        assert differs.all(), f"no change at {np.argwhere(~np.asarray(differs)).tolist()} for token {place}"


def never_reads_padding(tiny: Tiny) -> None:
    """States of tokens that are there do not change with what stands in the padding behind them."""
    program = tiny.program()
    params, tokens = moved(program.model), _tokens(program)
    there = (jnp.arange(T) < jnp.array([[T], [T - 3], [2]])).astype(jnp.int32)
    other = jnp.where(there > 0, tokens, (tokens + 1) % program.data.vocab)

    @jax.jit
    def states(tokens: Array) -> Array:
        return _states(program.model.bind(params), tokens, segment_ids=there)

    one, same = np.asarray(states(tokens)), np.asarray(states(other))
    np.testing.assert_array_equal(one[np.asarray(there) > 0], same[np.asarray(there) > 0])
    if isinstance(program.abstract_model, EncoderDecoder):
        _never_reads_padding_of_sources(program, params, tokens, other, there)


def _never_reads_padding_of_sources(program: Program, params: Params, one: Array, other: Array, there: Array) -> None:
    """The target's states do not change with what stands in the padding behind its source."""

    @jax.jit
    def states(source: Array) -> Array:
        model = program.model.bind(params)
        return model.decode(one, model.encode_source(source[:, :S], segment_ids=there[:, :S]))[0]

    np.testing.assert_array_equal(states(one), states(other))


def decodes_as_it_reads(tiny: Tiny) -> None:
    """Cached decoding of prompts of different lengths takes the tokens that reading everything anew would.

    An encoder-decoder's prompts are beginnings of targets; their sources are of different lengths, too.
    """
    program = tiny.program()
    params, draw = moved(program.model), np.random.default_rng(13)
    if not isinstance(program.abstract_model, CausalLM | EncoderDecoder):
        raise SkipTest("neither a CausalLM nor an EncoderDecoder")
    told = not isinstance(program.abstract_model, CausalLM)
    prompts, sources = (
        [draw.integers(0, program.data.vocab, n).astype(np.int32) for n in lengths]
        for lengths in ((1, 4, 2), (3, 1, 3))
    )
    decoder = Decoder(program.model, Greedy(), end_of_text=None, limit=positions(program.model))
    written = decoder.complete(params, prompts, length=T - 4, sources=sources if told else None)

    logits = _reader(program, params, told)
    for prompt, source, row in zip(prompts, sources, written, strict=True):
        whole = np.concatenate([prompt, row])
        padded = np.pad(whole, (0, T - len(whole)))[None]
        # A causal model has no source: one and the same program reads all of its rows.
        found = np.asarray(logits(padded, source[None] if told else padded))[0, len(prompt) - 1 : len(whole) - 1]
        chosen = np.take_along_axis(found, row[:, None], axis=1)[:, 0]
        # Not the same ids but equally good ones: two logits may be closer than the two programs are.
        assert_close(chosen, found.max(axis=1))


def serves_as_it_reads(tiny: Tiny) -> None:
    """Requests that come and go beside each other get tokens that reading everything anew would give them.

    Prompts are read in pieces that are filled up with padding, and rows are moved, entered and left.
    """
    program = tiny.program()
    params, draw = moved(program.model), np.random.default_rng(31)
    if not isinstance(program.abstract_model, CausalLM):
        raise SkipTest("not a CausalLM")
    slots = Slots(program.model, params, slots=2, length=T, pieces=(3,), shortest=T - 2)
    slots.compile()
    engine, ended = Engine(slots, waiting=9), queue.SimpleQueue[Any]()
    prompts = [draw.integers(0, program.data.vocab, n).astype(np.int32) for n in (1, 4, 2, 5)]
    written: list[list[int]] = [[] for _ in prompts]

    def asked(prompt: np.ndarray, length: int, row: list[int]) -> Request:
        def receive(token: int) -> bool:
            row.append(token)
            return True

        return Request(prompt, length, Sampling(temperature=0.0), receive, ended.put)

    engine.submit([asked(*one) for one in zip(prompts, (4, 2, 5, 2), written, strict=True)])
    engine.start()
    endings = [ended.get(timeout=600) for _ in prompts]
    engine.close()
    assert endings == ["length"] * len(prompts), endings

    logits = _reader(program, params, False)
    for prompt, row in zip(prompts, written, strict=True):
        whole = np.concatenate([prompt, row]).astype(np.int32)
        padded = np.pad(whole, (0, T - len(whole)))[None]
        found = np.asarray(logits(padded, padded))[0, len(prompt) - 1 : len(whole) - 1]
        assert_close(np.take_along_axis(found, np.array(row)[:, None], axis=1)[:, 0], found.max(axis=1))


def searches_as_it_reads(tiny: Tiny) -> None:
    """The log-probability of what a beam search finds is that of reading it: each beam has its own cache.

    Prompts are of different lengths; an encoder-decoder's sources are, too.
    """
    program = tiny.program()
    params, draw = moved(program.model), np.random.default_rng(29)
    if not isinstance(program.abstract_model, CausalLM | EncoderDecoder):
        raise SkipTest("neither a CausalLM nor an EncoderDecoder")
    told = not isinstance(program.abstract_model, CausalLM)
    prompts, sources = (
        [draw.integers(1, program.data.vocab, n).astype(np.int32) for n in lengths] for lengths in ((1, 3), (3, 1))
    )
    search = BeamSearch(program.model, BeamOptions(3), end_of_text=0, limit=positions(program.model))
    found = search.search(params, prompts, length=3, sources=sources if told else None)

    logits = _reader(program, params, told)
    for prompt, source, hypotheses in zip(prompts, sources, found, strict=True):
        assert hypotheses
        for tokens, total, score in hypotheses:
            whole = np.concatenate([prompt, tokens, [0] * (len(tokens) < 3)]).astype(np.int32)
            padded = np.pad(whole, (0, T - len(whole)))[None]
            log_p = np.asarray(jax.nn.log_softmax(logits(padded, source[None] if told else padded)))
            each = log_p[0, np.arange(len(whole) - 1), whole[1:]]
            assert_close(np.float32(total), each[len(prompt) - 1 :].sum())
            assert_close(np.float32(score), np.float32(total / (len(whole) - len(prompt))))


def _reader(program: Program, params: Params, told: bool) -> Callable[..., Array]:
    """A compiled function from tokens, and the sources of which they are targets (if `told`), to logits."""

    @jax.jit
    def logits(tokens: Array, source: Array) -> Array:
        model = program.model.bind(params)
        states = model.decode(tokens, model.encode_source(source)) if told else model.hidden(tokens)
        return model.project(states[0])

    return logits


def keeps_documents_apart(tiny: Tiny) -> None:
    """Two documents packed into a row have the states that each has in a row of its own."""
    program = tiny.program()
    model, params, tokens = program.model, moved(program.model), _tokens(program)
    first = 3
    segments = jnp.where(jnp.arange(T) < first, 1, 2) * jnp.ones((B, 1), jnp.int32)
    places = jnp.where(jnp.arange(T) < first, jnp.arange(T), jnp.arange(T) - first) * jnp.ones((B, 1), jnp.int32)
    _causal(program, params)

    @jax.jit
    def read(params: Params) -> tuple[Array, Array, Array]:
        bound = model.bind(params)
        packed = bound.hidden(tokens, positions=places, segment_ids=segments)[0]
        return packed, bound.hidden(tokens[:, :first])[0], bound.hidden(tokens[:, first:])[0]

    packed, one, other = read(params)
    assert_close(packed, jnp.concatenate([one, other], axis=1))


def drops_by_row(tiny: Tiny) -> None:
    """With random keys, a row's states depend on its own key and tokens only; without keys they do not vary."""
    program = tiny.program()
    model, params, tokens = program.model, moved(program.model), _tokens(program)
    keys = jax.random.split(jax.random.key(17), B)

    @functools.partial(jax.jit, static_argnums=2)
    def read(tokens: Array, keys: Array, row: int | None) -> Array:
        rows = slice(None) if row is None else slice(row, row + 1)
        return _states(model.bind(params), tokens, rows, keys=keys)

    assert_close(read(tokens, keys, None)[1:2], read(tokens[1:2], keys[1:2], 1))


def unrolled_is_scanned(tiny: Tiny) -> None:
    """A stack that is unrolled has the same loss and gradient as one that is scanned."""
    _same_for(tiny, "scan", (True, False))


def computed_again_is_kept(tiny: Tiny) -> None:
    """Rematerialisation changes neither the loss nor the gradient."""
    known = parameters(tiny.entry).get("remat")
    _same_for(tiny, "remat", ("none", "dots", "full") if known is None else get_args(known.annotation))


def _same_for(tiny: Tiny, option: str, values: tuple[Any, ...]) -> None:
    if option not in parameters(tiny.entry):
        raise SkipTest(f"{tiny.entry.name} has no parameter '{option}'")
    programs = [tiny.program(**{f"{tiny.entry.name}.{option}": value}) for value in values]
    params = moved(programs[0].model)
    first, *others = [gradients(program, params) for program in programs]
    for value, other in zip(values[1:], others, strict=True):
        assert_close(other, first, what=f"{option}={value}")


@functools.lru_cache(maxsize=4)
def moved(model: ModelDef[Any]) -> Params:
    """Parameters away from where they start, so that none is zero and no two are alike."""

    key = jax.random.key(19)
    params = jit_once(model.init)(key)
    if _counts(model):
        tokens = jax.random.randint(key, (B, T), 0, 11)
        batch = {"tokens": tokens, "targets": tokens * 3 % 11, "weights": jnp.ones(tokens.shape)}
        return jit_once(lambda params: model.bind(params).count(batch))(params)
    # By NumPy: a draw of every shape would be a program as large as the initialisation.
    draw, begun = np.random.default_rng(19), jax.device_get(params)
    return {p: jnp.asarray(v + 0.1 * draw.standard_normal(v.shape, np.float32)) for p, v in begun.items()}


def _counts(model: ModelDef[Any]) -> bool:
    return isinstance(model.bind(model.shapes), CountedLM)


def gradients(program: Program, params: Params) -> Mapping[str, Array]:
    """The gradient of the loss's sum over the first training batch, without random keys; and the sum, as `""`."""
    together = getattr(program.loss, "together", 1)  # rows that the loss compares with each other
    rows = range(-(-B // together) * together)
    batch = jax.tree.map(jnp.asarray, program.data.train.batch(0, rows))
    step = jnp.zeros((), jnp.int32)
    function = jax.jit(jax.value_and_grad(lambda p: program.loss(program.model.bind(p), batch, None, step).total))
    total, gradient = function(params)
    return {"": total, **gradient}


def _causal(program: Program, params: Params) -> CausalLM:
    model = program.model.bind(params)
    if not isinstance(model, CausalLM):
        raise SkipTest("not a CausalLM")
    return model


@functools.lru_cache(maxsize=2)
def _written(program: Program) -> Any:
    """A compiled function from tokens to the states of the model's left-to-right half."""
    params = moved(program.model)
    return jax.jit(lambda tokens: Writing.of(program.model.bind(params)).read(tokens)[0])


def _states(model: Any, tokens: Array, rows: slice = slice(None), **given: Any) -> Array:
    """States of tokens, of which these are some of B rows."""
    return (
        model.encode(tokens, **given)
        if isinstance(model, TokenEncoder)
        else Writing.of(model, rows).read(tokens, **given)[0]
    )


def _states_and_logits(program: Program, params: Mapping[str, Any]) -> tuple[Array, Array]:
    model = program.model.bind(params)
    states = _states(model, _tokens(program))
    return states, model.project(states)


def _tokens(program: Program) -> Array:
    return jnp.asarray(np.random.default_rng(23).integers(0, program.data.vocab, (B, T)), jnp.int32)


LAWS = (
    has_float32_logits,
    starts_from_its_key,
    learns_in_every_parameter,
    is_the_same_without_jit,
    never_looks_ahead,
    reads_in_pieces_as_at_once,
    sees_both_sides,
    never_reads_padding,
    decodes_as_it_reads,
    serves_as_it_reads,
    searches_as_it_reads,
    keeps_documents_apart,
    drops_by_row,
    unrolled_is_scanned,
    computed_again_is_kept,
)
