"""The root of every Spec: what an experiment is made of, and how it is run."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

from lmlab.contracts import (
    Adapter,
    Dataset,
    Evaluator,
    Follows,
    Hook,
    Loss,
    Model,
    Optimizer,
    Partitioner,
    Ref,
    Spec,
    Tokenizer,
    Writer,
)
from lmlab.ranges import Count, Fraction, Natural, NonNegative, Positive, Seed
from lmlab.registry import settings


@settings.register("checkpoints")
@dataclass(frozen=True)
class Checkpoints:
    """When the state is saved, and which saved states are kept.

    Args:
      every: steps between checkpoints (0: only at the end and when interrupted).
      minutes: also save when so many minutes have passed since the last save (0: never).
      keep_last: newest checkpoints to keep.
      keep_best: checkpoints to keep beside these, best by `metric`.
      metric: the evaluation metric that `keep_best` orders by, as `evaluator/metric` names in metrics.jsonl.
      lower_is_better: the direction of `metric`.
    """

    every: Natural = 500
    minutes: NonNegative = 0.0
    keep_last: Count = 2
    keep_best: Natural = 0
    metric: str = "valid/nats_per_token"
    lower_is_better: bool = True


@settings.register("finite_guard")
@dataclass(frozen=True)
class FiniteGuard:
    """What happens when the loss or its gradient is not finite: the update is skipped and counted.

    Args:
      patience: stop after so many skipped updates in a row.
    """

    patience: Count = 20


@settings.register("init_from")
@dataclass(frozen=True)
class InitFrom:
    """Start from the parameters of another run (parameters only: step, optimizer and data start anew).

    Of a table of positions that is longer there, the first ones are taken; where this run's is longer, it is refused.

    Args:
      run: the run folder.
      step: which of its checkpoints (None: the newest).
      rename: pairs (regular expression, replacement) applied to the saved paths, first match wins.
      allow_missing: regular expressions of parameters that may keep their fresh values.
    """

    TINY: ClassVar[str] = "init_from.run = '{folder}'"

    run: str
    step: Natural | None = None
    rename: tuple[tuple[str, str], ...] = ()
    allow_missing: tuple[str, ...] = ()


@settings.register("update")
@dataclass(frozen=True)
class Update:
    """One of several updates of a training step: some parameters, by a loss and an optimizer of their own.

    The updates of a step are made in the order of `experiment.updates`, each from the parameters that the one before
    it left, on the same batch with random numbers of its own. Parameters that no update names stay as they are: one
    update with a pattern trains a part of a model and freezes the rest.

        experiment.updates = [@generator/update, @discriminator/update]
        generator/update.name = 'generator'
        generator/update.parameters = ['^generator/']

    Args:
      name: prefix of its metrics (`generator/loss`) and key of its optimizer's state; each update has another.
      loss: what it minimises (None: the experiment's).
      optimizer: its update rule, which has a state of its own (None: one like the experiment's).
      parameters: regular expressions; it changes the parameters whose path one of them is found in.
      repeats: times that it is made in a step, on the same batch.
      every: it is made in every so many-th step: in those whose number from 0 is `every` - 1 and on.
      begin: the first step in which it may be made.
      end: the first step in which it is made no more (None: never).
    """

    name: str = "update"
    loss: Annotated[Spec, Loss] | None = None
    optimizer: Annotated[Spec, Optimizer] | None = None
    parameters: tuple[str, ...] = ("",)
    repeats: Count = 1
    every: Count = 1
    begin: Natural = 0
    end: Natural | None = None


@settings.register("experiment")
@dataclass(frozen=True)
class Experiment:
    """One training run: what is learned from what, and how it is carried out.

    Args:
      model: the network.
      loss: what is minimised.
      dataset: where the examples come from.
      optimizer: the update rule, with its learning-rate schedule.
      updates: what a step updates, one after the other, see `update`; none: all parameters, by `loss` and `optimizer`.
        With updates, `loss` is what evaluators measure, and both are the updates' that name none of their own.
      tokenizer: text to ids; None for datasets of ids.
      steps: optimizer steps of the whole run (schedules end here).
      global_batch_size: rows per step over all devices and microbatches.
      seq_len: tokens per row, T.
      source_len: tokens per row of an encoder-decoder's source, S (None: as many as T).
      packing: `windows` cuts one stream of documents into rows; `first_fit` packs whole documents into rows
        with segment ids (longer documents are cut). Examples that are rows by themselves have one each, or are packed.
        `contiguous` cuts the stream into as many lanes as a batch has rows, and never shuffles: each batch holds the
        next window of every lane, for models that carry their state over windows (`autoregressive.carry`).
      overlong: an example that a row cannot hold: `refuse` it, `drop` it and count, or `cut` it and count.
      unseen_label: an example whose label no training example has: `refuse`, `drop` and count, or `keep` and count it,
        as one that no model gets right.
      buckets: widths below `seq_len`, rising: training batches of short rows are only as wide as they must be, and each
        width has its own compiled program. For rows that hold one example each.
      max_examples: use only the first so many examples of the training split (None: all), chosen before shuffling.
      seed: the root of all randomness.
      compute_dtype: `auto` is float32 on CPU and bfloat16 on GPU and TPU; parameters are float32 always.
      weights: how matrices are kept: `int8` and `int4` are integers with scales, which `lmlab quantize` makes of a run
        and which do not learn; with `w8a8` and `fp8` inputs of linear maps are such numbers too (`nn.quantized`).
      clip_norm: scale the gradient down to this global norm (None: never).
      ema: decay of a moving average of the parameters, used by evaluation and generation (None: no average).
      init_from: start from another run's parameters.
      adapter: parameters beside the model's own, which do not learn then, but for the loss's own head (`lora`).

    How it is carried out, which never changes what is learned:
      microbatches: gradient accumulation: parts that each global batch is computed in.
      steps_per_dispatch: optimizer steps per compiled call (for models that are dispatch-bound).
      partitioner: the layout over devices.
      stop_at: leave the run unfinished at this step (schedules still end at `steps`).
      log_every: steps per record of metrics.jsonl, and between host synchronisations.
      eval_every: steps between evaluations (0: only at the end).
      eval_at: further steps after which the run is evaluated.
      evaluators, hooks: see `lmlab list`; by default those that the loss names, such as `perplexity` and `samples`.
      writers: where records go.
      checkpoints, finite_guard: see there.
      prefetch: batches made ahead, in the background.
    """

    model: Annotated[Spec, Model]
    loss: Annotated[Spec, Loss]
    dataset: Annotated[Spec, Dataset]
    optimizer: Annotated[Spec, Optimizer]
    steps: Count
    global_batch_size: Count
    seq_len: Count
    tokenizer: Annotated[Spec, Tokenizer] | None = None
    updates: tuple[Annotated[Spec, Update], ...] = ()
    source_len: Count | None = None
    packing: Literal["windows", "first_fit", "contiguous"] = "windows"
    overlong: Literal["refuse", "drop", "cut"] = "refuse"
    unseen_label: Literal["refuse", "drop", "keep"] = "refuse"
    buckets: tuple[Count, ...] = ()
    max_examples: Count | None = None
    seed: Seed = 0
    compute_dtype: Literal["auto", "float32", "bfloat16"] = "auto"
    weights: Literal["float32", "int8", "int4", "w8a8", "fp8"] = "float32"
    clip_norm: Positive | None = 1.0
    ema: Fraction | None = None
    init_from: Annotated[Spec, InitFrom] | None = None
    adapter: Annotated[Spec, Adapter] | None = None
    microbatches: Count = 1
    steps_per_dispatch: Count = 1
    partitioner: Annotated[Spec, Partitioner] = Ref("mesh")  # type: ignore[assignment]
    stop_at: Count | None = None
    log_every: Count = 10
    eval_every: Natural = 0
    eval_at: tuple[Count, ...] = ()
    evaluators: tuple[Annotated[Spec, Evaluator], ...] = Follows(  # type: ignore[assignment]
        "loss", "EVALUATORS", ("held_out",)
    )
    hooks: tuple[Annotated[Spec, Hook], ...] = Follows("loss", "HOOKS")  # type: ignore[assignment]
    writers: tuple[Annotated[Spec, Writer], ...] = (Ref("console"),)  # type: ignore[assignment]
    checkpoints: Annotated[Spec, Checkpoints] = Ref("checkpoints")  # type: ignore[assignment]
    finite_guard: Annotated[Spec, FiniteGuard] = Ref("finite_guard")  # type: ignore[assignment]
    prefetch: Count = 4

    OPERATIONAL: ClassVar[frozenset[str]] = frozenset({
        "microbatches", "steps_per_dispatch", "partitioner", "stop_at", "log_every", "eval_every", "eval_at",
        "evaluators", "hooks", "writers", "checkpoints", "finite_guard", "prefetch",
    })  # fmt: skip
    """The parameters that may differ between a run and its resumption: they do not change what is learned."""
