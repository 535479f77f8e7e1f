"""Capabilities: what a model can do, by having the methods. A loss names the ones that serve it.

In all methods `keys` holds one random key per row and switches dropout on; None is deterministic. `segment_ids` is 0 at
padding, which is never read. No two capabilities share all their method names, so that having the methods of one
never means having the other's by accident.

A model may also add terms of its own to the loss that it is trained with, such as the balance of a mixture of experts:
`hidden`, `encode` and the like then call `nn.auxiliary.report`, outside of loops. See there.

Letters in shapes: B batch, T time, S time of the source, D width, V vocabulary, Z latent.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, runtime_checkable

if TYPE_CHECKING:
    from jax import Array
    from jaxtyping import Bool, Float, Int, Key

Cache = Any
"""An explicit pytree, given and returned: keys and values seen so far, or a recurrent state. Rows are the axis that
`init_cache` was asked for, wherever it stands in each leaf."""

Memory = Any
"""What an encoder hands to its decoder: a pytree whose leaves have the rows as their first axis."""


@runtime_checkable
class CausalLM(Protocol):
    """Gives states of which position t depends on tokens[:, :t+1] only.

    Without a cache, a token sees its own segment only (0 is padding). With a `cache` (from `init_cache`), `tokens`
    continue what each row has read, and the returned cache has read them too; `segment_ids` then say which tokens are
    there: those with 0 stand at the end of their row and are not read.
    """

    def hidden(
        self,
        tokens: Int[Array, "B T"],
        *,
        positions: Int[Array, "B T"] | None = None,
        segment_ids: Int[Array, "B T"] | None = None,
        cache: Cache | None = None,
        keys: Key[Array, " B"] | None = None,
    ) -> tuple[Float[Array, "B T D"], Cache | None]:
        """States after reading each token, and the cache if one was given."""
        ...

    def project(self, hidden: Float[Array, "*N D"]) -> Float[Array, "*N V"]:
        """Next-token logits, float32."""
        ...

    def init_cache(self, batch: int, length: int) -> Cache:
        """An empty cache for `batch` rows that will read at most `length` tokens."""
        ...


@runtime_checkable
class PrefixLM(Protocol):
    """Reads a text to which a part is given at once: its tokens see each other, and all tokens behind see them."""

    def hidden_with_prefix(
        self,
        tokens: Int[Array, "B T"],
        prefix: Bool[Array, "B T"],
        *,
        positions: Int[Array, "B T"] | None = None,
        segment_ids: Int[Array, "B T"] | None = None,
        cache: Cache | None = None,
        keys: Key[Array, " B"] | None = None,
    ) -> tuple[Float[Array, "B T D"], Cache | None]:
        """As `CausalLM.hidden`, but that every token sees all tokens of its segment that are of the `prefix`, too.

        With a cache, the prefix is read at once.
        """
        ...

    def project(self, hidden: Float[Array, "*N D"]) -> Float[Array, "*N V"]:
        """Next-token logits, float32."""
        ...

    def init_cache(self, batch: int, length: int) -> Cache:
        """As in `CausalLM`."""
        ...


@runtime_checkable
class AdversarialLM(CausalLM, Protocol):
    """A `CausalLM` that writes, its generator, with a discriminator that tells what it writes from real texts.

    Both read ids (B, T) or, instead of each id, a row of probabilities of all of them (B, T, V), which stands for the
    mixture of their embeddings: `hidden` with the same law as of ids.
    """

    def judge(
        self,
        texts: Int[Array, "B T"] | Float[Array, "B T V"],
        *,
        segment_ids: Int[Array, "B T"] | None = None,
        keys: Key[Array, " B"] | None = None,
    ) -> Float[Array, " B"]:
        """The logit of each whole text being real, float32; above 0: rather real than written."""
        ...

    def judge_penalty(self) -> Float[Array, ""]:
        """Half the sum of squares of the discriminator's last layer, biases included, float32."""
        ...


@runtime_checkable
class CountedLM(CausalLM, Protocol):
    """A `CausalLM` that is not trained by gradient: its parameters, which may be integers, are counts."""

    def count(self, batch: Mapping[str, Array]) -> dict[str, Array]:
        """The parameters, by path, after a TokenBatch was counted too."""
        ...


@runtime_checkable
class TokenEncoder(Protocol):
    """Gives states of which every position may depend on every token of its segment."""

    def encode(
        self,
        tokens: Int[Array, "B T"],
        *,
        segment_ids: Int[Array, "B T"] | None = None,
        type_ids: Int[Array, "B T"] | None = None,
        keys: Key[Array, " B"] | None = None,
    ) -> Float[Array, "B T D"]:
        """States of each token in its two-sided context. `type_ids` tell the texts of a pair apart (0, 1)."""
        ...


@runtime_checkable
class BidirectionalLM(TokenEncoder, Protocol):
    """A `TokenEncoder` that says which token stands at a position (masked language models)."""

    def project(self, hidden: Float[Array, "*N D"]) -> Float[Array, "*N V"]:
        """Logits of the token at each position, float32."""
        ...


@runtime_checkable
class PooledEncoder(TokenEncoder, Protocol):
    """A `TokenEncoder` that makes one vector of a row (BERT's pooler)."""

    def pool(
        self, states: Float[Array, "B T D"], *, segment_ids: Int[Array, "B T"] | None = None
    ) -> Float[Array, "B D"]:
        """One vector per row from what `encode` gave."""
        ...


@runtime_checkable
class EncoderDecoder(Protocol):
    """Reads a source, then writes a target of which position t depends on the source and on tokens[:, :t+1] only."""

    def encode_source(
        self,
        tokens: Int[Array, "B S"],
        *,
        segment_ids: Int[Array, "B S"] | None = None,
        keys: Key[Array, " B"] | None = None,
    ) -> Memory:
        """What the decoder needs to know of the source, padding included."""
        ...

    def decode(
        self,
        tokens: Int[Array, "B T"],
        memory: Memory,
        *,
        segment_ids: Int[Array, "B T"] | None = None,
        cache: Cache | None = None,
        keys: Key[Array, " B"] | None = None,
    ) -> tuple[Float[Array, "B T D"], Cache | None]:
        """The decoder's states after reading each target token, and the cache if one was given (see `CausalLM`)."""
        ...

    def project(self, hidden: Float[Array, "*N D"]) -> Float[Array, "*N V"]:
        """Next-token logits, float32."""
        ...

    def init_decoding(self, memory: Memory, length: int) -> Cache:
        """An empty cache for the rows of `memory`, of which each will read at most `length` target tokens."""
        ...


class Gaussian(NamedTuple):
    """A normal law with independent coordinates, one per row."""

    mean: Float[Array, "B Z"]
    log_variance: Float[Array, "B Z"]


@runtime_checkable
class LatentLM(Protocol):
    """A language model with a latent vector per text: a posterior to infer it, a decoder that is told it."""

    def posterior(
        self,
        tokens: Int[Array, "B T"],
        *,
        segment_ids: Int[Array, "B T"] | None = None,
        keys: Key[Array, " B"] | None = None,
    ) -> Gaussian:
        """q(z | text), float32. The prior is standard normal."""
        ...

    def hidden_given(
        self,
        tokens: Int[Array, "B T"],
        latent: Float[Array, "B Z"],
        *,
        segment_ids: Int[Array, "B T"] | None = None,
        cache: Cache | None = None,
        keys: Key[Array, " B"] | None = None,
    ) -> tuple[Float[Array, "B T D"], Cache | None]:
        """As `CausalLM.hidden`, of p(text | z)."""
        ...

    def project(self, hidden: Float[Array, "*N D"]) -> Float[Array, "*N V"]:
        """Next-token logits, float32."""
        ...

    def init_cache(self, batch: int, length: int) -> Cache:
        """As in `CausalLM`."""
        ...


@runtime_checkable
class WordVectors(Protocol):
    """Gives two vectors for each token id, of which products say how well one goes with the other (word2vec)."""

    def vectors_of(self, tokens: Int[Array, "*N"]) -> Float[Array, "*N D"]:
        """The vectors of ids as words."""
        ...

    def context_vectors_of(self, tokens: Int[Array, "*N"]) -> Float[Array, "*N D"]:
        """The vectors of ids as what stands around a word."""
        ...


@runtime_checkable
class NoisyParameters(Protocol):
    """A model whose parameters are noisy in training (DropConnect). No loss asks for it; the trainer does, of any."""

    def with_noise(self, key: Key[Array, ""]) -> NoisyParameters:
        """The model with changed parameters; itself where it is known that nothing changes.

        Called once a step, with one key for all its rows: all microbatches and devices have the same parameters.
        """
        ...


CAPABILITIES: tuple[type, ...] = (
    CountedLM, AdversarialLM, CausalLM, PrefixLM, BidirectionalLM, PooledEncoder, TokenEncoder, EncoderDecoder,
    LatentLM, WordVectors,
)  # fmt: skip
"""All of them, the ones that say more before the ones that they contain."""


def capabilities_of(component: type) -> tuple[type, ...]:
    """What the models of a class can do; a capability that another one of them contains is left out."""
    found = [capability for capability in CAPABILITIES if issubclass(component, capability)]
    return tuple(c for c in found if not any(other is not c and issubclass(other, c) for other in found))


def named(needs: type | tuple[type, ...]) -> str:
    """A loss's `needs` in words: `CausalLM`, or `PooledEncoder or CausalLM`."""
    return " or ".join(c.__name__ for c in (needs if isinstance(needs, tuple) else (needs,)))
