"""Parts small enough to compile in half a second, and parts that misbehave: a plug-in, as a user would write it."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import jax
import jax.numpy as jnp
from flax import nnx

from lmlab.contracts import CausalLM, LossOutput, TextPair, TokenBatch, TokenEncoder
from lmlab.nn.linear import Linear, normal
from lmlab.nn.randomness import content_keys
from lmlab.nn.states import token_states
from lmlab.registry import datasets, evaluators, hooks, losses, models


@models.register("bigram")
class Bigram(nnx.Module):
    """A table of what follows each token, in factors, with dropout between them."""

    def __init__(self, vocab: int, rngs: nnx.Rngs, *, width: int = 5, dropout: float = 0.25):
        draw = nnx.initializers.normal(0.3)
        self.embedding = nnx.Param(draw(rngs.params(), (vocab, width)), role="embedding")
        self.head = nnx.Param(draw(rngs.params(), (width, vocab)), role="kernel")
        self.rate = dropout

    def hidden(self, tokens, *, positions=None, segment_ids=None, cache=None, keys=None):
        x = self.embedding[...][tokens]
        if keys is not None:
            kept = jax.vmap(lambda key: jax.random.bernoulli(key, 1 - self.rate, x.shape[1:]))(keys)
            x = jnp.where(kept, x / (1 - self.rate), 0.0)
        return x, cache

    def project(self, hidden):
        return hidden.astype(jnp.float32) @ self.head[...]

    def init_cache(self, batch, length):
        return ()


@models.register("rock")
class Rock(nnx.Module):
    """A model that can do nothing."""

    def __init__(self, vocab: int, rngs: nnx.Rngs):
        self.weight = nnx.Param(jnp.ones((vocab,)), role="scale")


@losses.register("log_of_zero")
@dataclass(frozen=True)
class LogOfZero:
    """Bigram cross-entropy that takes the logarithm of zero from one step on, for some steps."""

    needs: ClassVar[type] = CausalLM
    reads: ClassVar[type] = TokenBatch

    first: int = 5
    count: int = 1_000_000

    def __call__(self, model, batch, keys, step):
        hidden, _ = model.hidden(batch["tokens"], keys=keys)
        logits = jnp.where(hidden[..., :1] > 1e9, -jnp.inf, model.project(hidden))  # a mask, which is no fault
        logp = jax.nn.log_softmax(logits)
        nats = -jnp.take_along_axis(logp, batch["targets"][..., None], -1)[..., 0]
        bad = (step >= self.first) & (step < self.first + self.count)
        total = jnp.sum(nats * batch["weights"]) + jnp.log(jnp.where(bad, 0.0, 1.0))  # the fault
        return LossOutput(total, jnp.sum(batch["weights"]), {})


@losses.register("odd_or_even")
@dataclass(frozen=True)
class OddOrEven:
    """Whether the next token is odd, by a layer of its own; chance chooses half the tokens, also in an evaluation."""

    vocab: int
    special_ids: Mapping[str, int]

    needs: ClassVar[tuple[type, ...]] = (TokenEncoder, CausalLM)
    reads: ClassVar[type] = TokenBatch

    def make_head(self, width, rngs):
        return Linear(width, 2, normal(0.3), rngs=rngs)

    def __call__(self, model, batch, keys, step):
        keys = content_keys(batch["tokens"]) if keys is None else keys
        chosen = jax.vmap(lambda key: jax.random.bernoulli(key, 0.5, batch["tokens"].shape[1:]))(keys)
        logp = jax.nn.log_softmax(model.task_head(token_states(model, batch["tokens"])))
        nats = -jnp.take_along_axis(logp, batch["targets"][..., None] % 2, -1)[..., 0]
        weights = batch["weights"] * chosen
        return LossOutput((nats * weights).sum(), weights.sum(), {"nats": ((nats * weights).sum(), weights.sum())})


@evaluators.register("numbers")
@dataclass(frozen=True)
class Numbers:
    """Reports the next of some numbers each time."""

    values: tuple[float, ...] = (1.0,)

    def bind(self, program):
        values = iter(self.values * 1000)

        def measure(state) -> Mapping[str, float]:
            return {"valid/number": next(values)}

        return measure


@hooks.register("footprints")
@dataclass(frozen=True)
class Footprints:
    """Writes down at which steps it was called."""

    def bind(self, run):
        path = run.folder / "footprints.txt"

        def hook(step: int, state, last: bool) -> None:
            with path.open("a") as file:
                file.write(f"{step}{' last' if last else ''}\n")

        return hook


@hooks.register("brake")
@dataclass(frozen=True)
class Brake:
    """Takes its time after every step, so that there is a moment to be killed in."""

    seconds: float = 0.003

    def bind(self, run):
        return lambda step, state, last: time.sleep(self.seconds)


@losses.register("slow_to_compile")
@dataclass(frozen=True)
class SlowToCompile:
    """Bigram cross-entropy with a long chain of matrix products, on which the compiler spends a minute."""

    needs: ClassVar[type] = CausalLM
    reads: ClassVar[type] = TokenBatch

    def __call__(self, model, batch, keys, step):
        hidden, _ = model.hidden(batch["tokens"], keys=keys)
        square = jnp.ones((hidden.shape[-1], hidden.shape[-1]))
        for i in range(900):
            hidden = jnp.sort(jnp.sin(hidden + i) @ square, axis=i % 3)
        return LossOutput(jnp.sum(hidden), jnp.sum(batch["weights"]), {})


@datasets.register("toy_pairs")
@dataclass(frozen=True)
class ToyPairs:
    """Pairs of up to 4 letters in all, 57 of them."""

    example: ClassVar[type] = TextPair

    def split(self, name: str) -> list[TextPair]:
        return [TextPair("ab"[: i % 3], "yz"[: i % 3], f"{name} {i}") for i in range(57)]

    def fingerprint(self) -> dict[str, int]:
        return {"pairs": 57}
