"""The few types that everything agrees on: Spec, losses, what a run gives to its parts.

Example kinds, batch types, capabilities and plain data are in modules of their own (`examples`, `batches`,
`capabilities`, `specs`), and are reached from here.

Nothing here imports jax: array types stand in annotations only.
Letters in shapes: B batch, T time, D width, H heads, K head width, V vocabulary, L layers.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple, Protocol, runtime_checkable

from lmlab.batches import ChoiceBatch as ChoiceBatch
from lmlab.batches import CorruptedBatch as CorruptedBatch
from lmlab.batches import LabelBatch as LabelBatch
from lmlab.batches import MaskableBatch as MaskableBatch
from lmlab.batches import PairBatch as PairBatch
from lmlab.batches import SentenceOrderBatch as SentenceOrderBatch
from lmlab.batches import SentencePairBatch as SentencePairBatch
from lmlab.batches import SpanBatch as SpanBatch
from lmlab.batches import TagBatch as TagBatch
from lmlab.batches import TokenBatch as TokenBatch
from lmlab.capabilities import AdversarialLM as AdversarialLM
from lmlab.capabilities import BidirectionalLM as BidirectionalLM
from lmlab.capabilities import Cache as Cache
from lmlab.capabilities import CausalLM as CausalLM
from lmlab.capabilities import CountedLM as CountedLM
from lmlab.capabilities import EncoderDecoder as EncoderDecoder
from lmlab.capabilities import Gaussian as Gaussian
from lmlab.capabilities import LatentLM as LatentLM
from lmlab.capabilities import Memory as Memory
from lmlab.capabilities import NoisyParameters as NoisyParameters
from lmlab.capabilities import PooledEncoder as PooledEncoder
from lmlab.capabilities import PrefixLM as PrefixLM
from lmlab.capabilities import TokenEncoder as TokenEncoder
from lmlab.capabilities import WordVectors as WordVectors
from lmlab.examples import Conversation as Conversation
from lmlab.examples import Document as Document
from lmlab.examples import LabelledText as LabelledText
from lmlab.examples import Question as Question
from lmlab.examples import TaggedText as TaggedText
from lmlab.examples import Text as Text
from lmlab.examples import TextPair as TextPair
from lmlab.examples import Tokens as Tokens
from lmlab.examples import TokenSequence as TokenSequence
from lmlab.specs import Follows as Follows
from lmlab.specs import FrozenDict as FrozenDict
from lmlab.specs import Ref as Ref
from lmlab.specs import Spec as Spec
from lmlab.specs import Value as Value

if TYPE_CHECKING:
    import numpy as np
    import optax
    from jax import Array
    from jaxtyping import Bool, Float, Int, Key

# --- Losses ---------------------------------------------------------------------------------------------------


class LossOutput(NamedTuple):
    """Sums, and what to divide them by. Only the trainer divides, once, after all microbatches and devices."""

    total: Float[Array, ""]
    weight: Float[Array, ""]
    metrics: Mapping[str, tuple[Float[Array, ""], Float[Array, ""]]]


class Loss(Protocol):
    """A frozen dataclass that turns a model's answer on a batch into sums.

    One with parameters of its own, such as a classifier's last layer, has `make_head(width: int, rngs: nnx.Rngs) ->
    nnx.Module`, D being the width of the model's states; the model then carries the head as its `task_head`.

    One that learns from another model names it, `teacher: Spec`, the run folder that its parameters are from, `run:
    str`, and the checkpoint, `run_step: int | None`; the model then has it as its `teacher`, which does not learn, and
    `make_head` is given the width of its states, too.

    The evaluators and hooks of an experiment that names none are those that its loss does: `EVALUATORS` and `HOOKS`,
    tuples of names; without them `held_out`, which reports the loss's own metrics, and no hook.

    One whose rows are made by numbers of its own names these parameters, `FEATURES: ClassVar[tuple[str, ...]]`; the
    conversion to its batch finds them in `Setting.of_loss`.

    One whose rows go on from the batch before has `start(model, rows: int) -> carry`: a pytree that has the rows as the
    first axis of every leaf, or None, where its configuration carries nothing; and `carried(model, batch, carry, keys,
    step) -> tuple[LossOutput, carry]`, which the trainer and the evaluators call in place of the loss itself. The carry
    is a part of the state of training. Its batches, of the packing `contiguous`, say which rows are `fresh`; through
    what is carried no gradient goes back.

    One that is a sum of losses says which parameter holds these: `PARTS: ClassVar[str]`. What they need and read is
    asked of them; its own `needs` and `reads` are those of its default. `whole(means: Mapping[str, float]) -> float` is
    what it comes to, of the means of its metrics. Where a dataset is several (`TASKS: ClassVar[str]` says which
    parameter holds them), each part finds the arrays of its own by `batches.task_batch`.

    One that compares rows with each other has `together: int`: blocks of so many consecutive rows of the global batch,
    which microbatches and devices do not split.
    """

    needs: ClassVar[type | tuple[type, ...]]
    """The capability that the model must have, or several of which one is enough."""
    reads: ClassVar[type]
    """The batch type that `features` must make."""

    def __call__(
        self, model: Any, batch: Mapping[str, Array], keys: Key[Array, " B"] | None, step: Int[Array, ""]
    ) -> LossOutput:
        """Loss sums over the batch; `keys` holds one random key per row, None when evaluating.

        What is drawn in an evaluation (masks, noise) is a function of each row's own content: see `nn.randomness`.
        """
        ...


# --- Data -----------------------------------------------------------------------------------------------------


class Dataset(Protocol):
    """A corpus with named splits of random-access examples, all of one example kind.

    Datasets of `LabelledText` have `labels`, those of `TaggedText` have `tags` (and `labels`, where the whole has one):
    tuples of names, sorted, as they occur in the training split. Datasets of ids have `vocab`. A dataset of which
    something is known exactly has `known() -> Mapping[str, float]`: entropy, optimum, chance level. One
    whose law is known has `nats(sequences: (N, T) ids) -> (N, T) float64`, the exact -log p of each token of sequences
    that stand behind the id which opens its rows, infinite for what never occurs. One that is drawn
    from a law, its splits independent of each other and therefore not without common examples, says so by
    `independent: ClassVar[bool] = True`. One whose examples are parts of documents that are kept whole, so that a short
    one ("No .") may stand in two splits, says which by `part_of: ClassVar[str] = "document"`; the example's `source` is
    then the document and, after its last colon, the part. One whose examples may become several batch types says which
    they usually do by `usual: ClassVar[type]`.
    """

    example: ClassVar[type]

    def split(self, name: str) -> Sequence[Any]:
        """The examples of `train`, `valid` or `test`; DataError if there is no such split or it is empty."""
        ...

    def fingerprint(self) -> Mapping[str, Value]:
        """JSON-able facts that change whenever the examples change."""
        ...


class Transform(Protocol):
    """Changes the examples of a dataset, one by one: see the dataset `transformed`, which applies it.

    One that draws says so by `random: ClassVar[bool] = True`, and is then applied to training examples only. One that
    counts in the training examples first has `fit(examples) -> Transform`, which gives a copy that knows the counts.
    One that leaves out examples because of other ones has `keep(examples) -> Sequence[int]`: the places, in order, of
    those of a split that stay.
    """

    def __call__(self, example: Any, rng: np.random.Generator) -> Any | None:
        """An example of the same kind, which depends on these two only, or None where no text is left of it."""
        ...


class Tokenizer(Protocol):
    """Text to ids and back, without loss for text that the vocabulary covers.

    A tokenizer that does not know everything has `unknown: int`, the id for what it does not know. One whose
    `decode(encode(text))` may differ from a text that it knows (case, spaces) has `lossy: ClassVar[bool] = True`.
    """

    @property
    def vocab_size(self) -> int:
        """Number of ids, V."""
        ...

    @property
    def end_of_text(self) -> int:
        """The id put after every document."""
        ...

    @property
    def special_ids(self) -> Mapping[str, int]:
        """Ids that stand for no text, by role: `end_of_text` always; `unknown`, `mask`, `separator`, `classify`, ..."""
        ...

    def fit(self, texts: Iterable[str]) -> Tokenizer:
        """This tokenizer with its vocabulary made from training texts (itself, if it needs none)."""
        ...

    def encode(self, text: str) -> np.ndarray:
        """Ids of `text`, 1-d int32, without `end_of_text`."""
        ...

    def encode_batch(self, texts: Sequence[str]) -> list[np.ndarray]:
        """Ids of each text, as `encode` gives them; one call into compiled code where there is such."""
        ...

    def encode_words(self, words: Sequence[str]) -> list[np.ndarray]:
        """Ids of each word as it stands in a text of these words with single spaces between; none is empty."""
        ...

    def offsets(self, text: str) -> np.ndarray:
        """Range of characters [start, stop) of `text` behind each id that `encode` gives, (n, 2) int32."""
        ...

    def decode(self, ids: np.ndarray | Sequence[int]) -> str:
        """Text of `ids`; bytes that are not UTF-8 come out as U+FFFD."""
        ...

    def token_bytes(self) -> Sequence[bytes]:
        """The UTF-8 bytes that each id stands for (b"" for special ids): makes bits per byte exact."""
        ...

    def to_json(self) -> dict[str, Value]:
        """The fitted vocabulary, for the run folder."""
        ...

    def from_json(self, saved: Mapping[str, Value]) -> Tokenizer:
        """This tokenizer with a saved vocabulary."""
        ...


# --- Optimization ---------------------------------------------------------------------------------------------


class Schedule(Protocol):
    """A number as a function of the step; its own numbers may be tracers."""

    def __call__(self, step: Int[Array, ""]) -> Float[Array, ""]:
        """The value at optimizer step `step` (0 is the first), float32."""
        ...


class Optimizer(Protocol):
    """A frozen dataclass of hyper-parameters (which may be tracers) that makes an optax transformation.

    One that can use the gradients of certain losses only names them, `LOSSES: ClassVar[tuple[str, ...]]`; one that
    cannot use gradients that were clipped says `UNCLIPPED: ClassVar[bool] = True`; one that stands for none, beside a
    model that counts, `COUNTS: ClassVar[bool] = True`.
    """

    def transformation(self, roles: Mapping[str, str]) -> optax.GradientTransformation:
        """The update rule; `roles` maps each parameter's path to its role (kernel, bias, scale, embedding, ...)."""
        ...


# --- Running --------------------------------------------------------------------------------------------------


class Partitioner(Protocol):
    """Lays one training program out over devices and processes; every partitioner gives the same numbers.

    A *state* here is any pytree of arrays that has a dict of parameters by path as `.params`, or such a dict
    itself. It is in the partitioner's own layout (sharded, or replicated with a leading device axis);
    `export` gives the layout that checkpoints hold, and `abstract` the shapes of that one. What stands in a state under
    `.model_state["carry"]` has the rows of the global batch as its first axis, and lies over the devices as they do.
    """

    @property
    def axis_name(self) -> str | None:
        """The axis that the step must sum over itself (pmap), or None where the compiler does it (jit)."""
        ...

    def check(self, global_batch_size: int, microbatches: int) -> None:
        """ConfigError unless the devices are there and the batch divides over them and the microbatches."""
        ...

    def rows(self, global_batch_size: int) -> range:
        """The rows of the global batch that this process reads: one block."""
        ...

    def initializer(self, make_state: Callable[[Any], Any], given: Any) -> Callable[[Any], Any]:
        """`make_state` as one compiled program, whose result is laid out over the devices.

        Args:
          make_state: of a key, or of a tree of arrays with a key in it.
          given: such a thing, for its shapes.
        """
        ...

    def place(self, batch: Mapping[str, np.ndarray], leading: int = 0) -> Mapping[str, Array]:
        """This process's rows as part of the global batch on the devices; `leading` axes stand before B.

        The arrays share no memory with `batch`. May be called from any thread.
        """
        ...

    def compile(
        self,
        function: Callable[..., Any],
        state: Any,
        batch: Any,
        *,
        leading: int = 0,
        donate: bool = False,
        carries: bool = False,
    ) -> Callable[..., Any]:
        """A function of (state, batch), traced and compiled ahead of time: other shapes are then an error.

        Args:
          function: with `donate`, it returns (state, outputs); without, only outputs (evaluation). Outputs are
            the same on every device and come back without a device axis; if there is an `axis_name`, the
            function must sum over it.
          state: shapes in the exported layout, from `abstract` or a part of it, such as `.params`.
          batch: shapes of the global batch, as arrays or ShapeDtypeStructs by name.
          leading: axes before B in the batch (1 for several steps per dispatch).
          donate: the state given is used up, and its memory holds the state returned.
          carries: without `donate`, it returns (rows, outputs): a tree whose leaves have rows first and stay where they
            are, to be a part of the next batch.

        Returns:
          A `jax.stages.Compiled`, to be called with states and placed batches.
        """
        ...

    def lower(
        self,
        function: Callable[..., Any],
        state: Any,
        batch: Any,
        *,
        leading: int = 0,
        donate: bool = False,
        carries: bool = False,
    ) -> Any:
        """What `compile` compiles, a `jax.stages.Lowered`: traced, so that its cost can be asked, but not compiled."""
        ...

    def export(self, state: Any) -> Any:
        """The state in the layout that checkpoints hold: global arrays, no device axis. May share its memory."""
        ...

    def abstract(self, make_state: Callable[[Array], Any], key: Array) -> Any:
        """The exported state as ShapeDtypeStructs with shardings: the target of a restore."""
        ...

    def load(self, exported: Any) -> Any:
        """An exported (restored) state in this partitioner's own layout. `exported` is used up."""
        ...


class Evaluator(Protocol):
    """Measures a model on a split of the data, between steps."""

    def bind(self, program: Any) -> Callable[[Any], Mapping[str, float]]:
        """Prepares for a `lmlab.training.program.Program`; the result maps a running state to named metrics."""
        ...


class Hook(Protocol):
    """Something done after a step, from the outside: it sees the run and may not change it."""

    def bind(self, run: Any) -> Callable[[int, Any, bool], None]:
        """Prepares for a `lmlab.training.loop.Run`; the result is called as `(steps done, state, last)` after
        every dispatch and returns at once where nothing is due."""
        ...


class Writer(Protocol):
    """Somewhere that metrics go. Only the first process writes."""

    def bind(self, folder: Any, spec: Spec) -> OpenWriter:
        """Opens for the run folder (a pathlib.Path), also on resume."""
        ...


class OpenWriter(Protocol):
    """A writer at work."""

    def write(self, record: Mapping[str, Value]) -> None:
        """One record: `step`, `phase` (train, eval or event) and named numbers."""
        ...

    def close(self) -> None:
        """Called once, also after a failure."""
        ...


class Sampler(Protocol):
    """Chooses the next token of every row from its logits."""

    def __call__(self, logits: Float[Array, "B V"], keys: Key[Array, " B"]) -> Int[Array, " B"]:
        """One id per row."""
        ...


@runtime_checkable
class TextSampler(Sampler, Protocol):
    """A sampler that looks at the text written so far, too: it is asked for the logits that it then chooses from."""

    def weighed(
        self, logits: Float[Array, "B V"], tokens: Int[Array, "B N"], known: Bool[Array, "B N"]
    ) -> Float[Array, "B V"]:
        """The model's logits as they count after these tokens, of which those that are not `known` do not exist yet."""
        ...


class Launcher(Protocol):
    """Starts workers of a sweep somewhere (`python -m lmlab.sweeps.worker FOLDER`), which share the trials by locks."""

    def run(self, folder: Any, workers: int, tell: Callable[[dict[str, Any]], None]) -> None:
        """Starts them, and stays until they are done or a signal comes.

        Args:
          folder: a `sweeps.folder.SweepFolder`, written.
          workers: how many at the same time.
          tell: to be called now and then with the records of all trials, by id.

        Raises:
          Interrupted: a signal came; the workers have saved.
          LmlabError: they cannot be started.
        """
        ...


class Adapter(Protocol):
    """Parameters beside a model's own, of which, together, those that the model computes with are made."""

    def adapt(self, model: Any, own: Collection[str]) -> Any:
        """The `nn.functional.ModelDef` with the adapter's parameters, an `nn.adapters.Adapted`.

        Args:
          model: the model alone.
          own: paths of those of its parameters that may be adapted.

        Raises:
          ConfigError: the adapter does not fit the model.
        """
        ...

    def learns(self, path: str) -> bool:
        """Whether one of the model's own parameters learns beside the adapter's."""
        ...


class Settings(Protocol):
    """A typed group of a run's own settings."""


class Model(Protocol):
    """Any registered model: an nnx.Module whose capabilities are its methods.

    One that serves fewer losses than its capabilities do names them: `LOSSES: ClassVar[tuple[str, ...]]`.

    One that adds terms to its loss reports them by `nn.auxiliary.report(name, total, weight, coefficient)`: sums over
    rows, as a loss returns. The trainer minimises total / weight of the loss plus coefficient * total / weight of every
    term, all sums being those of the whole batch, and records each as the metric `auxiliary/NAME`. One whose parameters
    are noisy in training has the method of `NoisyParameters`.
    """


KIND_TYPES: dict[str, type] = {
    "model": Model,
    "loss": Loss,
    "dataset": Dataset,
    "tokenizer": Tokenizer,
    "optimizer": Optimizer,
    "schedule": Schedule,
    "partitioner": Partitioner,
    "evaluator": Evaluator,
    "hook": Hook,
    "writer": Writer,
    "sampler": Sampler,
    "transform": Transform,
    "launcher": Launcher,
    "adapter": Adapter,
    "settings": Settings,
}
"""The annotation that a parameter carries to hold a component of a kind.

`learning_rate: float | Schedule` receives the component built; `model: Annotated[Spec, Model]` keeps the Spec,
for parts that are built later, or inside a traced function.
"""

SUPPLIED: dict[str, tuple[str, ...]] = {
    "model": ("vocab", "seq_len", "source_len", "dtype", "rngs", "run_targets"),
    "loss": ("vocab", "special_ids", "labels", "tags", "counts", "steps"),
    "optimizer": ("stacked", "rates"),
    "schedule": ("steps",),
}
"""What the program gives to components of a kind, beside their configuration; binding one of these is refused.

vocab: number of token ids. seq_len, source_len: T and S of the training batches. dtype: compute dtype. rngs: nnx.Rngs.
run_targets: positions of all training batches of the run, in each of which something may be predicted.
special_ids: ids that stand for no text, by role (`mask`, `end_of_text`, ...). labels, tags: names of the classes of
examples and of words, by id. counts: a function without arguments that gives how often each id is to be predicted in
the training split, (V,) int64; it counts when it is first called. steps: length of the run in optimizer steps. stacked:
paths of the parameters whose first axis is that of a stack's blocks, a frozenset. rates: by path, what multiple of the
learning rate a parameter learns by, where that is not 1.
"""
