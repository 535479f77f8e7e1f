"""A mixture of experts in the place of a feed-forward half (Shazeer et al. 2017, arXiv:1701.06538)."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array
from jaxtyping import Bool, Float, Int

from lmlab.errors import ConfigError
from lmlab.nn.auxiliary import report
from lmlab.nn.linear import Initializer, Linear
from lmlab.nn.mlp import MLP
from lmlab.nn.numbers import Number
from lmlab.nn.stack import make_stack, run_stack


class Routing:
    """How tokens find their experts. A plain object, because its numbers may be tracers.

    Args:
      experts: how many there are, E.
      per_token: how many of them compute each token, K.
      balance_loss, router_z_loss: coefficients of the terms `balance` and `router_z`; see `Sums`.
      init: of the router's kernel.

    Raises:
      ConfigError: there are fewer than K experts.
    """

    def __init__(
        self,
        experts: int,
        per_token: int,
        balance_loss: float | Array,
        router_z_loss: float | Array,
        init: Initializer,
    ) -> None:
        if per_token > experts:
            raise ConfigError(
                f"experts_per_token = {per_token} is more than there are: experts = {experts}. Ask for fewer of them."
            )
        self.experts, self.per_token, self.init = experts, per_token, init
        self.balance, self.router_z = Number(balance_loss), Number(router_z_loss)


def routing_of(
    experts: int | None, per_token: int, balance_loss: float | Array, router_z_loss: float | Array, init: Initializer
) -> Routing | None:
    """As `Routing`; None for a model without experts."""
    return None if experts is None else Routing(experts, per_token, balance_loss, router_z_loss, init)


class Sums(NamedTuple):
    """What a router is charged for, summed over the rows of a batch; padding does not count.

    Attributes:
      balance: per row E * sum over experts of f * p, f being the share of the row's K choices per token that fell on an
        expert, p the mean probability that the row's tokens gave it: 1 where both are even, at most E / K. It is
        the loss of Switch Transformers (Fedus et al. 2021, arXiv:2101.03961, equations 4 to 6) for each row on its
        own, as DeepSeek-V3's sequence-wise loss (arXiv:2412.19437, equations 17 to 20): the product of two means over
        a batch would depend on how the batch is split.
      router_z: per token the squared logarithm of the sum of exponentials of the router's logits (ST-MoE, Zoph et al.
        2022, arXiv:2202.08906, equation 5).
    """

    balance: Float[Array, ""]
    router_z: Float[Array, ""]


class Choice(NamedTuple):
    """What a router made of N tokens, float32.

    Attributes:
      gates: what each expert's output is multiplied by, (N, E); zero but for K of them.
      chosen: one where an expert is among the token's K.
      probabilities: of all experts.
      log_z: logarithm of the sum of exponentials of the logits.
    """

    gates: Float[Array, "N E"]
    chosen: Float[Array, "N E"]
    probabilities: Float[Array, "N E"]
    log_z: Float[Array, " N"]


class Experts(nnx.Module):
    """E feed-forward halves, of which each token is computed by the K that a router chooses for it.

    Gates are the probabilities of the chosen experts, divided by their sum (Mixtral, Jiang et al. 2024,
    arXiv:2401.04088, section 2.1); with K = 1 the probability itself, without which the router would not learn (Switch,
    equation 2). No expert is ever full: a token's output depends on that token alone, so that rows do not influence
    each other, and decoding with a cache is reading.

    All experts compute all tokens, one expert after the other, and what was not chosen is multiplied by zero. That is
    E / K times the products that are needed, by a loop that holds the inner activations of one expert at a time, in the
    backward pass, too, which computes them again. The alternative, tokens sorted by expert and `jax.lax.ragged_dot`, is
    on CPUs a product with all experts as well, but at once: there it takes 20 times the memory and 8 times as long
    (8 experts, 2048 tokens, float32). It would also sort tokens across the devices that hold them.

    Args:
      routing: how tokens find their experts.
      make_expert: makes one expert.
      width: D.
      rngs: where initial values come from.
    """

    def __init__(self, routing: Routing, make_expert: Callable[[nnx.Rngs], MLP], width: int, rngs: nnx.Rngs) -> None:
        self.routing = routing
        self.router = Linear(width, routing.experts, routing.init, bias=False, rngs=rngs)
        self.experts = make_stack(make_expert, routing.experts, rngs)

    def __call__(
        self, x: Float[Array, "B*T D"], batch: int, segment_ids: Int[Array, "B T"] | None
    ) -> tuple[Float[Array, "B*T D"], Sums]:
        """Each token on its own; and what the router is charged for, of tokens that are there (not of segment 0)."""
        choice = self.choose(x)
        rows = batch, x.shape[0] // batch
        there = jnp.ones(rows, bool) if segment_ids is None else segment_ids != 0
        graphdef, params = nnx.split(self.experts)
        y = _mixture(graphdef, params, x, choice.gates.astype(x.dtype))
        return y.astype(x.dtype), self.sums(choice, there)

    def choose(self, x: Float[Array, "N D"]) -> Choice:
        """Each token's experts, found in float32."""
        logits = x.astype(jnp.float32) @ self.router.kernel[...]
        probabilities = jax.nn.softmax(logits, -1)
        best, places = jax.lax.top_k(probabilities, self.routing.per_token)
        if self.routing.per_token > 1:
            best = best / best.sum(-1, keepdims=True)
        each = jax.nn.one_hot(places, self.routing.experts)
        gates = (each * best[..., None]).sum(-2)
        return Choice(gates, each.sum(-2), probabilities, jax.nn.logsumexp(logits, -1))

    def sums(self, choice: Choice, there: Bool[Array, "B T"]) -> Sums:
        """What the router is charged for."""
        routing, weights = self.routing, there.astype(jnp.float32)
        count = jnp.maximum(weights.sum(1, keepdims=True), 1)

        def means(x: Float[Array, "N E"]) -> Float[Array, "B E"]:
            return (x.reshape(*there.shape, -1) * weights[..., None]).sum(1) / count

        even = means(choice.chosen) * means(choice.probabilities) * routing.experts / routing.per_token
        return Sums(even.sum(), (choice.log_z.reshape(there.shape) ** 2 * weights).sum())


def report_routing(
    routing: Routing, sums: Sums, batch: int, time: int, segment_ids: Int[Array, "B T"] | None, stack: str = ""
) -> None:
    """Adds the terms of all layers to the loss, if somebody collects them (`nn.auxiliary`).

    They are sums over layers, of means over rows (`balance`) and over tokens (`router_z`).

    Args:
      routing: of every layer.
      sums: of all layers, (L,).
      batch, time: B and T.
      segment_ids: 0 at padding, which does not count.
      stack: what the terms' names begin with, in a model of several stacks.
    """
    there = jnp.ones((batch, time), bool) if segment_ids is None else segment_ids != 0
    rows, tokens = there.any(1).sum(dtype=jnp.float32), there.sum(dtype=jnp.float32)
    report(f"{stack}balance", sums.balance.sum(), rows, routing.balance.value)
    report(f"{stack}router_z", sums.router_z.sum(), tokens, routing.router_z.value)


def _run(graphdef: Any, params: Any, x: Float[Array, "N D"], gates: Float[Array, "N E"]) -> Float[Array, "N D"]:
    """The sum of all experts' outputs times their gates, float32."""

    def body(expert: MLP, total: Array, at: tuple[Array, Array]) -> tuple[Array, None]:
        _, gate = at
        return total + (gate[:, None] * expert(x)).astype(jnp.float32), None

    experts = nnx.merge(graphdef, params)
    return run_stack(experts, body, jnp.zeros(x.shape, jnp.float32), gates.T, scan=True, remat="full")[0]


_mixture = jax.custom_vjp(_run, nondiff_argnums=(0,))


# A rematerialised loop inside of a rematerialised block follows the block's policy, and `dots` would keep the products
# of all experts. So the backward pass is a function of what went in, whatever is around.
def _forward(graphdef: Any, params: Any, x: Array, gates: Array) -> tuple[Array, tuple[Any, Array, Array]]:
    return _run(graphdef, params, x, gates), (params, x, gates)


def _backward(graphdef: Any, saved: tuple[Any, Array, Array], given: Array) -> tuple[Any, Array, Array]:
    return jax.vjp(functools.partial(_run, graphdef), *saved)[1](given)


_mixture.defvjp(_forward, _backward)
