"""Rows that come and go in one compiled step: what is on the device while requests are written side by side.

A prompt is read alone, in pieces, into a cache of one row; the row then enters a slot beside the others and takes part
in every step, at its own position and with its own sampling numbers, until it leaves. All shapes are compiled
beforehand: pieces of a few lengths, steps of a few numbers of rows and, where what the model keeps grows with the text,
a few lengths of caches. Which of them is used follows from who is there; what a row draws does not, but for the order
in which a product of another shape adds up its numbers.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from lmlab.errors import ConfigError
from lmlab.generation.caches import NO_ROWS, empty_for_steps, for_steps, read, rows_of_cache
from lmlab.generation.row_sampling import Numbers, drawn
from lmlab.nn.attention import KVCache

if TYPE_CHECKING:
    from jaxtyping import Array, Int

    from lmlab.contracts import Cache
    from lmlab.nn.functional import ModelDef

PIECES = (32, 64, 128)
"""Tokens of a prompt that are read at once."""
SHORTEST = 256
"""Tokens in the shortest cache; each longer one is four times as long."""
PATIENCE = 32
"""Steps in which fewer rows, or shorter caches, would have done, before the rows move together."""


class Rows(NamedTuple):
    """Rows on their way, on the device; those that nobody holds are computed as well, and nobody looks at them."""

    cache: Cache
    token: Int[Array, " B"]
    """Chosen, and not read yet."""
    place: Int[Array, " B"]
    """Where the token after it will stand."""
    numbers: Numbers


class Sampling(NamedTuple):
    """How the tokens of one request are drawn; see `Numbers`."""

    temperature: float = 1.0
    top_k: int | None = None
    top_p: float = 1.0
    min_p: float = 0.0
    seed: int = 0
    choice: int = 0

    def numbers(self) -> Numbers:
        """As arrays of one row."""
        top_k = np.iinfo(np.int32).max if self.top_k is None else self.top_k
        columns: list[Any] = [
            np.float32(self.temperature), np.int32(top_k), np.float32(self.top_p), np.float32(self.min_p),
            np.uint32(self.seed), np.int32(self.choice),
        ]  # fmt: skip
        return Numbers(*(column[None] for column in columns))


class Opening(NamedTuple):
    """A prompt that is being read: how far, its cache of one row, and what comes next (None before all is read)."""

    read: int
    room: int
    cache: Cache
    token: Int[Array, " 1"] | None


class Holder(NamedTuple):
    """Who holds a row, and how many tokens the row will have at most."""

    who: Any
    need: int


class Slots:
    """Rows of one model on one device.

    Args:
      model: the definition of a causal model.
      params: path -> array.
      slots: the most rows.
      length: the most tokens of a row, prompt included.

      pieces: tokens of a prompt that are read at once, ascending.
      shortest: tokens in the shortest cache, of a model whose cache grows with the text.

    Raises:
      ConfigError: the model keeps something that is not of a row.
    """

    def __init__(
        self,
        model: ModelDef[Any],
        params: Mapping[str, Array],
        *,
        slots: int,
        length: int,
        pieces: Sequence[int] = PIECES,
        shortest: int = SHORTEST,
    ) -> None:
        self.model, self.slots, self.length, self.pieces = model, slots, length, pieces
        self._params = jax.jit(partial(for_steps, model))(params)
        axes = rows_of_cache(lambda _, rows: self._empty(rows, length), None)
        if NO_ROWS in jax.tree.leaves(axes):
            raise ConfigError(
                "this model's cache has parts that are of no row: its texts cannot be written side by side."
            )
        self._axes = Rows(axes, 0, 0, Numbers(*(0 for _ in Numbers._fields)))  # type: ignore[arg-type]
        whole = jax.eval_shape(lambda: self._empty(1, length))
        self.rooms = _levels(shortest, length) if isinstance(whole, KVCache) else (length,)
        self.widths = _levels(1, slots)
        self._programs: dict[tuple[Any, ...], Any] = {}
        self._known: dict[tuple[int, int], Rows] = {}
        self._holders: list[Holder | None] = []
        self._rows: Rows | None = None
        self._width = self._room = 0  # indices of the levels
        self._idle = 0

    # --- Programs ---------------------------------------------------------------------------------------------

    def compile(self, say: Callable[[str], None] = lambda _: None) -> None:
        """Compiles all that can be needed, and says what; without it, each program is compiled when it is needed."""
        begun = time.perf_counter()
        for room in self.rooms:
            for size in self.pieces:
                self._program("piece", size, room)
            for width in self.widths:
                self._program("step", width, room)
                seconds = time.perf_counter() - begun
                say(f"compiled for {width} row{'s' * (width > 1)} of {room} tokens ({seconds:.0f} s)")
        for arguments in self._small_programs():
            self._program(*arguments)

    def _small_programs(self) -> Iterator[tuple[Any, ...]]:
        for room in self.rooms:
            yield "opening", room
            for width, shorter in itertools.product(self.widths, self.rooms):
                if shorter <= room:
                    yield "enter", width, room, shorter
            for one, other in itertools.pairwise(self.widths):
                yield from (("move", one, room, other, room), ("move", other, room, one, room))
        for one, other in itertools.pairwise(self.rooms):
            for width in self.widths:
                yield from (("move", width, one, width, other), ("move", width, other, width, one))
        yield "rows", self.widths[0], self.rooms[0]

    def _program(self, kind: str, *sizes: int) -> Any:
        """The compiled program of a kind and its sizes: made once, and called with these shapes only."""
        key = (kind, *sizes)
        if key not in self._programs:
            self._programs[key] = getattr(self, f"_lower_{kind}")(*sizes).compile()
        return self._programs[key]

    def _lower_rows(self, width: int, room: int) -> Any:
        return jax.jit(partial(self._empty_rows, width, room)).lower()

    def _lower_opening(self, room: int) -> Any:
        return jax.jit(partial(self._empty, 1, room)).lower()

    def _lower_piece(self, size: int, room: int) -> Any:
        cache = self._shapes(1, room).cache
        one = Sampling().numbers()
        tokens = np.zeros((1, size), np.int32)
        return jax.jit(self._read_piece, donate_argnums=1).lower(
            self._params, cache, tokens, np.int32(1), np.int32(0), one
        )

    def _lower_step(self, width: int, room: int) -> Any:
        rows = self._shapes(width, room)
        return jax.jit(self._next, donate_argnums=1).lower(self._params, rows)

    def _lower_enter(self, width: int, room: int, shorter: int) -> Any:
        rows = self._shapes(width, room)
        one = self._shapes(1, shorter)
        return jax.jit(_entered, donate_argnums=0, static_argnums=3).lower(rows, one, np.int32(0), _Static(self._axes))

    def _lower_move(self, width: int, room: int, new_width: int, new_room: int) -> Any:
        rows = self._shapes(width, room)
        target = self._shapes(new_width, new_room)
        whence = np.zeros(new_width, np.int32)
        return jax.jit(_moved, static_argnums=(2, 3)).lower(rows, whence, _Static(self._axes), _Static(target))

    def _shapes(self, width: int, room: int) -> Rows:
        """What rows of this number and length are made of; asked for once, since a model is traced for the answer."""
        if (width, room) not in self._known:
            self._known[width, room] = jax.eval_shape(partial(self._empty_rows, width, room))
        return self._known[width, room]

    # --- What is computed -------------------------------------------------------------------------------------

    def _empty(self, rows: int, room: int) -> Cache:
        return empty_for_steps(self.model, self._params, None, rows, room)

    def _empty_rows(self, width: int, room: int) -> Rows:
        numbers = Numbers(*(jnp.repeat(jnp.asarray(x), width) for x in Sampling(temperature=0.0).numbers()))
        nothing = jnp.zeros(width, jnp.int32)
        return Rows(self._empty(width, room), nothing, nothing, numbers)

    def _read_piece(
        self, params: Any, cache: Cache, tokens: Int[Array, "1 P"], count: Array, before: Array, numbers: Numbers
    ) -> tuple[Cache, Int[Array, " 1"]]:
        """The cache after `count` of these tokens, `before` having been read, and what would come next."""
        model = self.model.bind(params)
        there = (jnp.arange(tokens.shape[1]) < count).astype(jnp.int32)[None]
        hidden, cache = model.hidden(tokens, segment_ids=there, cache=cache)
        last = jax.lax.dynamic_index_in_dim(hidden, count - 1, axis=1, keepdims=False)
        return cache, drawn(model.project(last), numbers, (before + count)[None])

    def _next(self, params: Any, rows: Rows) -> Rows:
        """One token more in every row."""
        model = self.model.bind(params)
        hidden, cache = read(model, None, rows.token[:, None], rows.cache)
        token = drawn(model.project(hidden[:, 0]), rows.numbers, rows.place)
        return Rows(cache, token, rows.place + 1, rows.numbers)

    # --- Coming and going -------------------------------------------------------------------------------------

    @property
    def held(self) -> int:
        """How many rows are held."""
        return sum(holder is not None for holder in self._holders)

    def open(self, need: int) -> Opening:
        """The beginning of a prompt that will have `need` tokens with what is written, at most."""
        room = next(room for room in self.rooms if room >= need)
        return Opening(0, room, self._program("opening", room)(), None)

    def read(self, opening: Opening, prompt: np.ndarray, sampling: Sampling) -> Opening:
        """Reads the next piece of a prompt, with the token that follows the last one; the cache is used up."""
        left = prompt[opening.read :]
        size = next((size for size in self.pieces if size >= len(left)), self.pieces[-1])
        piece, count = np.zeros((1, size), np.int32), min(size, len(left))
        piece[0, :count] = left[:count]
        run = self._program("piece", size, opening.room)
        numbers, at = sampling.numbers(), np.int32(opening.read)
        cache, token = run(self._params, opening.cache, piece, np.int32(count), at, numbers)
        done = opening.read + count
        return Opening(done, opening.room, cache, token if done == len(prompt) else None)

    def enter(self, opening: Opening, sampling: Sampling, holder: Holder) -> None:
        """Gives a prompt that was read a row; there must be one left."""
        if self._rows is None:
            self._rows, self._holders = self._program("rows", *self._now)(), [None] * self._now[0]
        self._grow(self.held + 1, opening.room)
        row = self._holders.index(None)
        place = np.array([opening.read + 1], np.int32)
        one = Rows(opening.cache, opening.token, place, sampling.numbers())  # type: ignore[arg-type]
        self._rows = self._program("enter", *self._now, opening.room)(self._rows, one, np.int32(row))
        self._holders[row] = holder

    def leave(self, who: Any) -> None:
        """Frees the row that `who` holds."""
        self._holders = [None if holder is not None and holder.who is who else holder for holder in self._holders]

    def step(self) -> list[tuple[Any, int]]:
        """One token more in every row: who holds it, and the token."""
        self._settle()
        self._rows = self._program("step", *self._now)(self._params, self._rows)
        tokens = np.asarray(self._rows.token).tolist()
        return [(holder.who, token) for holder, token in zip(self._holders, tokens, strict=True) if holder is not None]

    @property
    def _now(self) -> tuple[int, int]:
        return self.widths[self._width], self.rooms[self._room]

    def _grow(self, rows: int, room: int) -> None:
        while self.widths[self._width] < rows:
            self._move(self._width + 1, self._room)
        while self.rooms[self._room] < room:
            self._move(self._width, self._room + 1)

    def _settle(self) -> None:
        """Takes fewer rows, or shorter ones, where these would have done for a while."""
        needed = max((holder.need for holder in self._holders if holder is not None), default=1)
        fewer = self._width > 0 and self.held <= self.widths[self._width - 1]
        shorter = self._room > 0 and needed <= self.rooms[self._room - 1]
        self._idle = self._idle + 1 if fewer or shorter else 0
        if self._idle >= PATIENCE:
            self._move(self._width - fewer, self._room - (shorter and not fewer))
            self._idle = 0

    def _move(self, width: int, room: int) -> None:
        """Goes on with rows of another number or length, those that are held first."""
        whence = sorted(range(len(self._holders)), key=lambda row: self._holders[row] is None)
        holders, before = [self._holders[row] for row in whence], self._now
        self._width, self._room = width, room
        size = self.widths[width]
        rows = np.array((whence + [0] * size)[:size], np.int32)
        self._rows = self._program("move", *before, *self._now)(self._rows, rows)
        self._holders = (holders + [None] * size)[:size]


class _Static:
    """A tree that a traced function is told as it is."""

    def __init__(self, tree: Any) -> None:
        self.tree = tree


def _levels(first: int, last: int) -> tuple[int, ...]:
    """first, four times that, ... and at the end `last`."""
    levels = [first]
    while levels[-1] < last:
        levels.append(levels[-1] * 4)
    return (*(level for level in levels if level < last), last)


def _entered(rows: Rows, one: Rows, row: Array, axes: _Static) -> Rows:
    """The rows with this one in the place of row `row`; where it is shorter, what stands behind is never seen."""

    def put(there: Array, new: Array, axis: int) -> Array:
        return jax.lax.dynamic_update_slice(there, new, [row if i == axis else 0 for i in range(there.ndim)])

    return jax.tree.map(put, rows, one, axes.tree)


def _moved(rows: Rows, whence: Int[Array, " N"], axes: _Static, target: _Static) -> Rows:
    """The rows `whence`, with what they keep made longer by zeros, or shorter."""

    def move(x: Array, axis: int, shape: Any) -> Array:
        kept = jnp.take(x, whence, axis)
        kept = kept[tuple(slice(0, size) for size in shape.shape)]
        return jnp.pad(kept, [(0, size - own) for size, own in zip(shape.shape, kept.shape, strict=True)])

    return jax.tree.map(move, rows, axes.tree, target.tree)
