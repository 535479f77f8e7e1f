"""An experiment made ready to run: its parts, built once and checked against each other, and its pure functions."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array
from jaxtyping import Key

from lmlab.config import Resolved, build, supplied_parameters, walk, with_values
from lmlab.contracts import Adapter, Dataset, Loss, Optimizer, Partitioner, Spec, Tokenizer
from lmlab.data import Data, JointData, open_data
from lmlab.data.optional import imported
from lmlab.errors import ConfigError
from lmlab.nn.adapters import ADAPTER
from lmlab.nn.functional import ModelDef, Params
from lmlab.nn.quantized import FACTORS, QuantizedDef, quantized
from lmlab.nn.states import states_width
from lmlab.registry import REGISTRIES, losses
from lmlab.training.carrying import CARRY, start_of
from lmlab.training.cost import matmul_flops
from lmlab.training.experiment import Checkpoints, Experiment, FiniteGuard, Update
from lmlab.training.fit import (
    check_carry,
    check_experiment,
    check_model,
    check_together,
    features_of,
    paths_of,
    reads_of,
    tasks_of,
)
from lmlab.training.randomness import INIT, stream_key
from lmlab.training.state import State, averaged_params
from lmlab.training.step import Recipe, make_init, make_step, many_steps
from lmlab.training.updates import Part

Compiled = Callable[..., Any]

TEACHER = "teacher/"
"""Where a model has the parameters of its teacher."""
HEAD = "task_head/"
"""Where it has those of its loss."""


class Dispatch(NamedTuple):
    """One or more optimizer steps as one compiled call.

    Attributes:
      call: `(state, batches) -> (state, metrics)`; the given state is used up. The metrics are one array, of shape
        (metrics, 2) or (steps, metrics, 2): sum and weight of each. Fetching many small arrays would cost more.
      names: the metrics, in that order; known once a step was computed.
    """

    call: Compiled
    names: Sequence[str]


class Program:
    """What an experiment computes. Making one checks that its parts fit; nothing is compiled before it is asked for.

    Args:
      resolved: the configuration (`lmlab.config.resolve(...)`).
      saved_tokenizer: the fitted vocabulary of the run folder, when resuming or reading a run.
      partitioner: another layout than the experiment's (`replay` uses one device).

    Attributes:
      resolved: the configuration.
      experiment: its settings; components still as Specs.
      partitioner: the layout over devices.
      loss: what is minimised.
      data: training batches, evaluation splits, tokenizer.
      dtype: the compute dtype.
      model: the network without its parameters.

    Raises:
      ConfigError: the parts do not fit each other.
      DataError: the corpus cannot serve.
    """

    def __init__(
        self,
        resolved: Resolved,
        *,
        saved_tokenizer: Mapping[str, Any] | None = None,
        partitioner: Partitioner | None = None,
    ) -> None:
        self.resolved = resolved
        self.experiment: Experiment = resolved.build()
        check_experiment(self.experiment)
        self.partitioner: Partitioner = partitioner or self._part("partitioner")
        self.partitioner.check(self.experiment.global_batch_size, self.experiment.microbatches)
        self.data = self._open_data(saved_tokenizer)
        self.dtype = compute_dtype(self.experiment.compute_dtype)
        self._make()
        for loss in (self.loss, *(part.loss for part in self.recipe.parts)):
            check_carry(self.experiment, self.carry_of(loss), self.abstract_model)

    def _make(self) -> None:
        """The parts of the step, and its recipe."""
        self.loss: Loss = self._loss(self.experiment.loss, "loss")
        check_together(self.experiment, self.loss, self.partitioner)
        self.model: ModelDef[Any] = self._define_model()
        check_model(self.loss, self.experiment.loss.name, self.abstract_model, self.experiment.model.name)
        optimizer, parts = self._rule(self.experiment.optimizer, "optimizer"), self._updates()
        self.recipe = Recipe.of(self.experiment, self.model, self.loss, optimizer, parts, self.frozen)

    def at(self, numbers: Mapping[str, Any]) -> Program:
        """The same program with other numbers in its Spec, for a population of runs that share its shapes.

        Args:
          numbers: path below the root, such as `optimizer.learning_rate` -> number, which may be a tracer: make it
            inside the traced function then.
        """
        other = copy.copy(self)
        for name in [name for name in vars(other) if isinstance(getattr(type(self), name, None), cached_property)]:
            del vars(other)[name]
        other.resolved = replace(self.resolved, spec=with_values(self.spec, numbers))
        other.experiment = other.resolved.build()
        other._make()
        return other

    @property
    def spec(self) -> Spec:
        """The root Spec."""
        return self.resolved.spec

    @property
    def facts(self) -> dict[str, Any]:
        """What losses are told (see `contracts.SUPPLIED`)."""
        return self._facts_of(self.data)

    def _facts_of(self, data: Data | JointData) -> dict[str, Any]:
        told = {"vocab": data.vocab, "special_ids": data.special_ids, "labels": data.labels, "tags": data.tags}
        return {**told, "counts": lambda: data.target_counts, "steps": self.experiment.steps}

    @property
    def one_dataset(self) -> Data:
        """The data, for those who read one dataset; ConfigError where there are several."""
        if isinstance(self.data, JointData):
            raise ConfigError(
                f"the dataset '{self.data.name}' stands for {len(self.data.tasks)}, and what is asked reads one. Its "
                "losses are measured by @held_out: experiment.evaluators = [@held_out]"
            )
        return self.data

    @property
    def taught_by(self) -> tuple[str, ...]:
        """Paths of the parameters of a teacher, where the loss has one."""
        return tuple(path for path in self.model.shapes if path.startswith(TEACHER))

    @cached_property
    def frozen(self) -> tuple[str, ...]:
        """Paths of what does not learn: a teacher's parameters, those that an adapter stands beside, integers."""
        if self.experiment.adapter is None:
            codes = self.model.codes if isinstance(self.model, QuantizedDef) else ()
            return tuple(path for path in self.model.shapes if path in self.taught_by or path in codes)
        adapter: Adapter = self._part("adapter")
        others = [path for path in self.model.shapes if not path.startswith((TEACHER, HEAD, ADAPTER))]
        return (*self.taught_by, *(path for path in others if not adapter.learns(path)))

    @property
    def tokenizer(self) -> Tokenizer | None:
        """The fitted tokenizer; None for datasets of ids."""
        return self.data.tokenizer

    @property
    def checkpoints(self) -> Checkpoints:
        """When states are saved, and which are kept."""
        return self._part("checkpoints")

    @property
    def finite_guard(self) -> FiniteGuard:
        """How many updates may be skipped."""
        return self._part("finite_guard")

    # --- Pure functions ---------------------------------------------------------------------------------------

    @cached_property
    def init(self) -> Callable[[Key[Array, ""]], State]:
        """From a key to the state before the first step."""
        return make_init(self.recipe)

    @cached_property
    def step(self) -> Callable[[State, Mapping[str, Array]], tuple[State, Any]]:
        """One optimizer step, `(state, batch) -> (state, metrics)`, as the partitioner wants it.

        Raises:
          ConfigError: the matrices are integers.
        """
        self.check_learns()
        return make_step(self.recipe, microbatches=self.experiment.microbatches, axis_name=self.partitioner.axis_name)

    def check_learns(self) -> None:
        """ConfigError where the matrices are integers."""
        if isinstance(self.model, QuantizedDef):
            raise ConfigError(
                f"experiment.weights = '{self.experiment.weights}': integers do not learn. Train with 'float32', and "
                "make them of that run: lmlab quantize RUN --run DIR"
            )

    @property
    def key(self) -> Key[Array, ""]:
        """What `init` is called with."""
        return stream_key(self.experiment.seed, INIT)

    # --- Shapes -----------------------------------------------------------------------------------------------

    @cached_property
    def abstract_model(self) -> nnx.Module:
        """The module with ShapeDtypeStructs for parameters: to ask what it is, and to trace it."""
        return self.model.bind(self.model.shapes)

    @cached_property
    def abstract_state(self) -> State:
        """The state in the layout of checkpoints, as ShapeDtypeStructs with shardings."""
        return self.partitioner.abstract(self.init, self.key)

    @cached_property
    def abstract_batch(self) -> dict[str, jax.ShapeDtypeStruct]:
        """One global batch, as ShapeDtypeStructs; with buckets, the widest."""
        return self._abstract_batch(None)

    def carry_of(self, loss: Loss) -> Any:
        """What the rows of a global batch carry from one to the next with a loss, as ShapeDtypeStructs; else None."""
        rows = self.experiment.global_batch_size
        return jax.eval_shape(lambda params: start_of(loss, self.model.bind(params), rows), self.model.shapes)

    def abstract_batches(self, width: int | None = None) -> dict[str, jax.ShapeDtypeStruct]:
        """What one dispatch reads: a batch (of one of the buckets' widths), or several on a new leading axis."""
        together, one = self.experiment.steps_per_dispatch, self._abstract_batch(width)
        if together == 1:
            return one
        return {name: jax.ShapeDtypeStruct((together, *batch.shape), batch.dtype) for name, batch in one.items()}

    def _abstract_batch(self, width: int | None) -> dict[str, jax.ShapeDtypeStruct]:
        rows, one = self.experiment.global_batch_size, self.data.train.sample(width)
        return {name: jax.ShapeDtypeStruct((rows, *array.shape[1:]), array.dtype) for name, array in one.items()}

    # --- On devices -------------------------------------------------------------------------------------------

    def init_state(self) -> State:
        """The state before the first step, on the devices, in the partitioner's layout."""
        return self.partitioner.initializer(self.init, self.key)(self.key)

    def step_flops(self) -> int:
        """Floating-point operations of the matrix products of one optimizer step (see `cost.matmul_flops`)."""
        self.check_learns()
        step = make_step(self.recipe, microbatches=self.experiment.microbatches)
        return matmul_flops(jax.make_jaxpr(step)(self.abstract_state, self.abstract_batch))

    def compile_step(self) -> Compiled:
        """The compiled `(state, batches) -> (state, metrics)` of one dispatch; the given state is used up."""
        return self._compile(self.step)

    def compile_dispatch(self) -> Dispatch:
        """The same as `compile_step`, for the loop: its metrics come back in one array."""
        names: list[str] = []

        def train_step(state: State, batch: Mapping[str, Array]) -> tuple[State, Array]:
            state, metrics = self.step(state, batch)
            names[:] = metrics  # known when this is traced, which is once
            return state, jnp.stack([jnp.stack(pair) for pair in metrics.values()])

        widths = self.data.train.widths
        if not widths:
            return Dispatch(self._compile(train_step), tuple(names))
        compiled = {shape_of(self.abstract_batches(width)): self._compile(train_step, width) for width in widths}
        return Dispatch(lambda state, batch: compiled[shape_of(batch)](state, batch), tuple(names))

    @property
    def leading(self) -> int:
        """Axes before B in what a dispatch reads and in the metrics that it returns."""
        return int(self.experiment.steps_per_dispatch > 1)

    def compile_evaluation(
        self, function: Callable[[Params, Mapping[str, Array]], Any], batch: Mapping[str, jax.ShapeDtypeStruct]
    ) -> Compiled:
        """A compiled `(running state, placed batch) -> sums` with the sums over all devices, on every device.

        Args:
          function: `(params, batch) -> tree of sums` over the rows that it is given; `params` are the averaged ones,
            where the experiment keeps an average.
          batch: the global batch, as ShapeDtypeStructs.
        """
        axis_name = self.partitioner.axis_name

        def evaluate(state: State, batch: Mapping[str, Array]) -> Any:
            sums = function(averaged_params(state), batch)
            return sums if axis_name is None else jax.lax.psum(sums, axis_name)

        return self.partitioner.compile(evaluate, self.abstract_state, batch)

    def compile_carrying(
        self,
        function: Callable[[Params, Mapping[str, Array], Any], tuple[Any, Any]],
        batch: Mapping[str, jax.ShapeDtypeStruct],
        carry: Any,
    ) -> Compiled:
        """A compiled `(running state, placed batch with the carry as its 'carry') -> (carry, sums)`.

        Args:
          function: `(params, batch, carry) -> (tree of sums, carry)`; else as in `compile_evaluation`.
          batch: as there.
          carry: what the rows of the global batch carry, as ShapeDtypeStructs.
        """
        axis_name = self.partitioner.axis_name

        def evaluate(state: State, batch: Mapping[str, Any]) -> Any:
            rows = {name: values for name, values in batch.items() if name != CARRY}
            sums, carry = function(averaged_params(state), rows, batch[CARRY])
            return carry, sums if axis_name is None else jax.lax.psum(sums, axis_name)

        return self.partitioner.compile(evaluate, self.abstract_state, {**batch, CARRY: carry}, carries=True)

    def compile_rows(
        self, function: Callable[[Params, Mapping[str, Array]], Any], batch: Mapping[str, jax.ShapeDtypeStruct]
    ) -> Compiled:
        """A compiled `(running state, placed batch) -> rows` with all rows of the global batch, on every device.

        Args:
          function: `(params, batch) -> tree of arrays`, whose first axis is that of the rows that it is given.
          batch: as in `compile_evaluation`.
        """
        axis_name = self.partitioner.axis_name

        def evaluate(state: State, batch: Mapping[str, Array]) -> Any:
            rows = function(averaged_params(state), batch)
            return rows if axis_name is None else jax.lax.all_gather(rows, axis_name, tiled=True)

        return self.partitioner.compile(evaluate, self.abstract_state, batch)

    def _compile(self, step: Callable[..., Any], width: int | None = None) -> Compiled:
        return self.compile_for(step, self.abstract_state, width)

    def compile_for(self, step: Callable[..., Any], state: State, width: int | None = None) -> Compiled:
        """`step`, or `steps_per_dispatch` of them in one program, for such a state and batches of a width."""
        dispatch = many_steps(step) if self.leading else step
        return self.partitioner.compile(
            dispatch, state, self.abstract_batches(width), leading=self.leading, donate=True
        )

    def _define_model(self) -> ModelDef[Any]:
        """The network without its parameters, with its integers or its adapter."""
        if self.experiment.weights in FACTORS:
            imported("qwix", f"multiplying numbers of experiment.weights = '{self.experiment.weights}'", "qwix")
        model = quantized(ModelDef.of(self._make_model), self.experiment.weights)
        if self.experiment.adapter is None:
            return model
        if isinstance(model, QuantizedDef):
            raise ConfigError(
                f"experiment.adapter stands beside float32, not beside experiment.weights = "
                f"'{self.experiment.weights}'. Train it with 'float32'; then lmlab merge, then lmlab quantize."
            )
        return self._part("adapter").adapt(
            model, [path for path in model.shapes if not path.startswith((TEACHER, HEAD))]
        )

    def _make_model(self, rngs: nnx.Rngs) -> nnx.Module:
        lengths = {
            "seq_len": self.experiment.seq_len,
            "source_len": self.experiment.source_len or self.experiment.seq_len,
            "run_targets": self.experiment.steps * self.experiment.global_batch_size * self.experiment.seq_len,
        }
        given = {"vocab": self.data.vocab, **lengths, "dtype": self.dtype, "rngs": rngs}
        model = self._part("model", **given)
        teacher, make_head = getattr(self.loss, "teacher", None), getattr(self.loss, "make_head", None)
        widths = []
        if teacher is not None:
            model.teacher = self._component(teacher, "loss/teacher", **given)
            check_model(self.loss, self.experiment.loss.name, model.teacher, teacher.name)
            widths.append(states_width(model.teacher))
        if make_head is not None:
            check_model(self.loss, self.experiment.loss.name, model, self.experiment.model.name)
            model.task_head = make_head(states_width(model), rngs, *widths)
        return model

    def _updates(self) -> tuple[Part, ...]:
        """The updates of a step, built; none for the one of all parameters."""
        experiment, parts = self.experiment, []
        for place, spec in enumerate(experiment.updates):
            update: Update = build(spec)
            at = f"updates/{place}"
            loss = self._loss(update.loss or experiment.loss, f"{at}/loss")
            rule = self._rule(update.optimizer or experiment.optimizer, f"{at}/optimizer")
            check_model(loss, (update.loss or experiment.loss).name, self.abstract_model, experiment.model.name)
            paths = paths_of(update, [path for path in self.model.shapes if path not in self.frozen])
            parts.append(Part(update.name, loss, rule, paths, update.repeats, update.every, update.begin, update.end))
        return tuple(parts)

    def _rule(self, spec: Spec, path: str) -> Optimizer:
        """An update rule, built.

        Raises:
          ConfigError: the model has learning rates by parameter, of which the rule does not know.
        """
        if self.model.rates and not any(_knows_rates(inner) for _, inner in walk(spec)):
            raise ConfigError(
                f"'{self.experiment.model.name}' has learning rates by parameter (mup_base_width), which the optimizer "
                f"'{spec.name}' does not know of. Use @adamw, or leave mup_base_width out."
            )
        supplied = {"stacked": self.model.stacked, "rates": self.model.rates}
        return self._component(spec, path, steps=self.experiment.steps, **supplied)

    def _loss(self, spec: Spec, path: str) -> Loss:
        """A loss, built; of a sum over several datasets, each part is told of its own."""
        made = {}
        if isinstance(self.data, JointData):
            component: Any = losses.get(spec.name)
            for place, task in enumerate(self.data.tasks):
                part, at = spec.kwargs[component.PARTS][place], f"{path}.{component.PARTS}.{place}"
                made[at] = self._component(part, at, **self._facts_of(task))
        return build(spec, self.resolved.provenance, path, made, **self.facts)

    def _component(self, spec: Spec, path: str, **supplied: Any) -> Any:
        return build(spec, self.resolved.provenance, path, **supplied)

    def _part(self, name: str, **supplied: Any) -> Any:
        """A part of the experiment, built; errors say where its values come from."""
        return build(getattr(self.experiment, name), self.resolved.provenance, name, **supplied)

    def _open_data(self, saved_tokenizer: Mapping[str, Any] | None) -> Data | JointData:
        return open_data(self.make_dataset(), self.make_tokenizer(), **self.reads(), saved_tokenizer=saved_tokenizer)

    def make_dataset(self) -> Dataset:
        """The dataset, of which nothing was read yet."""
        return self._part("dataset")

    def make_tokenizer(self) -> Tokenizer | None:
        """The tokenizer before it is fitted; None where there is none."""
        return None if self.experiment.tokenizer is None else self._part("tokenizer")

    def reads(self) -> dict[str, Any]:
        """What rows are made of the dataset, and in which order: the arguments of `open_data` for it."""
        experiment = self.experiment
        read_by = [loss for _, loss in tasks_of(experiment.dataset, experiment.loss)]
        reads, of_loss = [reads_of(loss) for loss in read_by], [features_of(loss) for loss in read_by]
        one = len(read_by) == 1
        return {
            "seq_len": experiment.seq_len,
            "source_len": experiment.source_len,
            "packing": experiment.packing,
            "overlong": experiment.overlong,
            "unseen_label": experiment.unseen_label,
            "buckets": experiment.buckets,
            "global_batch_size": experiment.global_batch_size,
            "seed": experiment.seed,
            "max_examples": experiment.max_examples,
            "reads": reads[0] if one else reads,
            "of_loss": of_loss[0] if one else of_loss,
        }


def _knows_rates(spec: Spec) -> bool:
    return "rates" in supplied_parameters(REGISTRIES[spec.kind].entry(spec.name))


def shape_of(batch: Mapping[str, Any]) -> tuple[tuple[int, ...], ...]:
    """Shapes of the arrays, by name: which compiled program a batch is for."""
    return tuple(batch[name].shape for name in sorted(batch))


def compute_dtype(name: str) -> Any:
    """The dtype of activations and matrix products; `auto` is float32 on CPU and bfloat16 elsewhere."""
    if name == "auto":
        name = "float32" if jax.default_backend() == "cpu" else "bfloat16"
    return jnp.dtype(name)
