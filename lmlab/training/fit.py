"""Whether the parts of an experiment fit each other: asked before data is read or anything is compiled."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import Any, cast

from lmlab.capabilities import capabilities_of, named
from lmlab.config import build
from lmlab.contracts import CountedLM, Partitioner, Spec
from lmlab.data.features import CONVERSIONS
from lmlab.errors import ConfigError
from lmlab.registry import article, datasets, losses, models, name_of, optimizers
from lmlab.training.experiment import Checkpoints, Experiment, Update


def check_experiment(experiment: Experiment) -> None:
    """Everything that can be said without data and devices.

    Raises:
      ConfigError: numbers that do not fit each other, a loss that the model cannot serve, or a dataset that the
        loss cannot read.
    """
    check_numbers(experiment)
    check_capability(experiment.model, experiment.loss)
    for dataset, loss in tasks_of(experiment.dataset, experiment.loss):
        check_dataset(dataset, loss)
    check_optimizer(experiment)
    check_updates(experiment)


def check_numbers(experiment: Experiment) -> None:
    """ConfigError for numbers that do not fit each other (ranges are in the annotations)."""
    if experiment.stop_at is not None and experiment.stop_at > experiment.steps:
        raise ConfigError(
            f"experiment.stop_at = {experiment.stop_at} lies behind the end of the run, experiment.steps = "
            f"{experiment.steps}. Raise steps, or take stop_at out."
        )
    if experiment.buckets and experiment.steps_per_dispatch > 1:
        raise ConfigError(
            "experiment.buckets makes batches of different widths, which experiment.steps_per_dispatch = "
            f"{experiment.steps_per_dispatch} cannot hold in one dispatch. Set one of them to its default."
        )
    checkpoints: Checkpoints = build(experiment.checkpoints)
    together = experiment.steps_per_dispatch
    numbers = {
        "experiment.steps": experiment.steps,
        "experiment.stop_at": experiment.stop_at,
        "experiment.log_every": experiment.log_every,
        "experiment.eval_every": experiment.eval_every,
        **{f"experiment.eval_at.{index}": step for index, step in enumerate(experiment.eval_at)},
        "checkpoints.every": checkpoints.every,
    }
    for name, value in numbers.items():
        if value and value % together:
            raise ConfigError(
                f"experiment.steps_per_dispatch = {together} does not divide {name} = {value}: nothing happens between "
                f"the steps of a dispatch. Make {name} a multiple of it."
            )


def tasks_of(dataset: Spec, loss: Spec) -> tuple[tuple[Spec, Spec], ...]:
    """Each dataset with the loss that reads it; ConfigError where several are not for as many losses of a sum."""
    several = getattr(datasets.get(dataset.name), "TASKS", None)
    if several is None:
        return ((dataset, loss),)
    read, summed = dataset.kwargs[several], getattr(losses.get(loss.name), "PARTS", None)
    each = () if summed is None else loss.kwargs[summed]
    if len(each) != len(read):
        has = f"is the sum of {len(each)}" if summed else "is one"
        raise ConfigError(
            f"the dataset '{dataset.name}' needs a loss for each of its {len(read)} datasets, and the loss "
            f"'{loss.name}' {has}. Set experiment.loss = @weighted, with as many weighted.losses, in their order."
        )
    return tuple(zip(read, each, strict=True))


def parts_of(loss: Spec) -> tuple[Spec, ...]:
    """The losses that a loss is the sum of; itself, where it is none."""
    component: Any = losses.get(loss.name)
    parts = getattr(component, "PARTS", None)
    return (loss,) if parts is None else tuple(part for spec in loss.kwargs[parts] for part in parts_of(spec))


def reads_of(loss: Spec) -> type:
    """The batch type that a loss reads; ConfigError for a sum of losses that read several."""
    found = {cast(Any, losses.get(part.name)).reads: part.name for part in parts_of(loss)}
    if len(found) > 1:
        each = ", ".join(f"'{name}' {article(reads.__name__)}" for reads, name in found.items())
        raise ConfigError(
            f"the losses of '{loss.name}' read different batches ({each}), and a step has one. Sum losses of one batch."
        )
    return next(iter(found))


def features_of(loss: Spec) -> dict[str, Any]:
    """The numbers of a loss that its rows are made by (see `contracts.Loss`)."""
    told: dict[str, Any] = {}
    for part in parts_of(loss):
        own = {name: part.kwargs[name] for name in getattr(losses.get(part.name), "FEATURES", ())}
        if told and own and told != own:
            raise ConfigError(
                f"the losses of '{loss.name}' want different rows: {told} and {own}. Give them the same numbers."
            )
        told |= own
    return told


def check_capability(model: Spec, loss: Spec) -> None:
    """ConfigError unless the model has the capability that the loss needs, naming the models that have it."""
    component: Any = models.get(model.name)
    parts = parts_of(loss)
    for part in parts:
        objective: Any = losses.get(part.name)
        needs, name = objective.needs, part.name if part is loss else f"{part.name}' of '{loss.name}"
        if inspect.isclass(component) and not issubclass(component, needs):  # what a function makes: see `check_model`
            raise ConfigError(misfit(name, needs, model.name, component))
    serves = getattr(component, "LOSSES", None)
    for name in (loss.name, *(part.name for part in parts)):
        if serves is not None and name not in serves:
            raise ConfigError(
                f"the model '{model.name}' does not serve the loss '{name}'.\n  losses that fit: {', '.join(serves)}"
            )


def check_dataset(dataset: Spec, loss: Spec) -> None:
    """ConfigError unless batches for the loss can be made of the dataset's examples, naming the datasets that fit."""
    component: Any = datasets.get(dataset.name)
    reads = reads_of(loss)
    example = getattr(component, "example", None)
    if not isinstance(example, type) or (example, reads) in CONVERSIONS:
        # What a function, a mixture or a store makes is known only when it is made: see `lmlab.data.conversion`.
        return
    raise ConfigError(
        f"the loss '{loss.name}' cannot read the dataset '{dataset.name}': it yields {example.__name__}, the "
        f"loss reads a {reads.__name__}.\n  datasets that fit: {', '.join(datasets_for(reads)) or 'none'}"
    )


def check_optimizer(experiment: Experiment) -> None:
    """ConfigError for an optimizer that serves certain losses only, or wants its gradients as they are."""
    component: Any = optimizers.get(experiment.optimizer.name)
    name, loss = experiment.optimizer.name, experiment.loss.name
    serves = getattr(component, "LOSSES", (loss,))
    if loss not in serves:
        raise ConfigError(
            f"the optimizer '{name}' cannot use the gradient of the loss '{loss}'.\n  losses that fit: "
            f"{', '.join(serves)}"
        )
    model: Any = models.get(experiment.model.name)
    counts = inspect.isclass(model) and issubclass(model, CountedLM)
    if counts != getattr(component, "COUNTS", False):
        way_out = "Set experiment.optimizer = @counting" if counts else "Choose an optimizer that learns by gradient"
        raise ConfigError(
            f"the model '{experiment.model.name}' {'counts' if counts else 'does not count'}, which the optimizer "
            f"'{name}' does {'not' if counts else 'only'}. {way_out}. (lmlab list optimizers)"
        )
    if counts and experiment.ema is not None:
        raise ConfigError("experiment.ema: a mean of tables of counts means nothing. Set experiment.ema = None.")
    if getattr(component, "UNCLIPPED", False) and experiment.clip_norm is not None:
        raise ConfigError(
            f"experiment.clip_norm = {experiment.clip_norm} changes the gradient, which the optimizer '{name}' needs "
            "as it is. Set experiment.clip_norm = None."
        )
    for inner in experiment.optimizer.kwargs.values():  # of one that changes another's updates
        if isinstance(inner, Spec) and inner.kind == "optimizer":
            check_optimizer(replace(experiment, optimizer=inner))


def check_updates(experiment: Experiment) -> None:
    """ConfigError unless the updates of a step have names of their own and losses that fit the model and the batch."""
    names: set[str] = set()
    for spec in experiment.updates:
        update: Update = build(spec)
        if not re.fullmatch(r"\w+", update.name) or update.name in names:
            fault = "stands twice" if update.name in names else "is no name of letters, digits and _"
            raise ConfigError(
                f"update.name = '{update.name}' {fault}: metrics and the optimizer's state of an update go by it. Name "
                "each update, in a scope of its own: generator/update.name = 'generator'."
            )
        names.add(update.name)
        if update.end is not None and update.end <= update.begin:
            raise ConfigError(
                f"the update '{update.name}' ends at step {update.end}, and begins at step {update.begin}: it would "
                "never be made. Raise update.end, or take it out."
            )
        if update.loss is not None:
            check_capability(experiment.model, update.loss)
            _check_shared(experiment, update)
        loss, optimizer = update.loss or experiment.loss, update.optimizer or experiment.optimizer
        check_optimizer(replace(experiment, loss=loss, optimizer=optimizer))
    model: Any = models.get(experiment.model.name)
    if experiment.updates and inspect.isclass(model) and issubclass(model, CountedLM):
        raise ConfigError(
            f"the model '{experiment.model.name}' counts, which is one update. Set experiment.updates = []."
        )


def _check_shared(experiment: Experiment, update: Update) -> None:
    """ConfigError unless the update's loss reads the batch of the experiment's, and brings no parameters."""
    assert update.loss is not None
    main = experiment.loss
    theirs, ours = (
        [reads_of(loss).__name__ for _, loss in tasks_of(experiment.dataset, whole)] for whole in (update.loss, main)
    )
    if theirs != ours:
        raise ConfigError(
            f"the loss '{update.loss.name}' of the update '{update.name}' reads a {' and a '.join(theirs)}, and the "
            f"experiment's, '{main.name}', a {' and a '.join(ours)}: all updates of a step read one batch."
        )
    if update.loss != main and any(hasattr(losses.get(part.name), "make_head") for part in parts_of(update.loss)):
        raise ConfigError(
            f"the loss '{update.loss.name}' of the update '{update.name}' has parameters of its own, which the model "
            f"only has for the experiment's loss. Set experiment.loss = @{update.loss.name}."
        )


def paths_of(update: Update, paths: Iterable[str]) -> tuple[str, ...]:
    """The parameters that an update changes; ConfigError for a pattern that none has or that is none."""
    paths, chosen = list(paths), set()
    for pattern in update.parameters:
        try:
            found = {path for path in paths if re.search(pattern, path)}
        except re.error as error:
            raise ConfigError(f"update.parameters: '{pattern}' is no regular expression: {error}.") from None
        if not found:
            raise ConfigError(
                f"the update '{update.name}': no parameter's path has '{pattern}' in it. The model has:\n  "
                + "\n  ".join(paths)
            )
        chosen |= found
    return tuple(path for path in paths if path in chosen)


def datasets_for(reads: type) -> Iterator[str]:
    """The names of the registered datasets (classes) that a type of batch can be made of; imports all of them."""
    for name in datasets.names():
        if (getattr(datasets.get(name), "example", None), reads) in CONVERSIONS:
            yield name


def check_model(loss: Any, loss_name: str, model: Any, model_name: str) -> None:
    """As `check_capability`, for a model that exists (abstractly)."""
    for part in getattr(loss, getattr(loss, "PARTS", ""), ()):
        check_model(part, name_of(part), model, model_name)
    if hasattr(loss, "PARTS"):
        return
    if not isinstance(model, loss.needs):
        raise ConfigError(misfit(loss_name, loss.needs, model_name, type(model)))


def check_together(experiment: Experiment, loss: Any, partitioner: Partitioner) -> None:
    """ConfigError where devices or microbatches would split rows that the loss compares with each other."""
    rows, together = experiment.global_batch_size, getattr(loss, "together", 1)
    if together == 1:
        return
    try:
        partitioner.check(rows // together if rows % together == 0 else 0, experiment.microbatches)
    except ConfigError:
        raise ConfigError(
            f"the loss '{experiment.loss.name}' compares blocks of {together} rows, which microbatches and devices may "
            f"not split, and experiment.global_batch_size = {rows} is no multiple of {together} × microbatches "
            f"({experiment.microbatches}) × devices. Make it one, or choose a smaller {experiment.loss.name}.group."
        ) from None


def check_carry(experiment: Experiment, carry: Any, model: Any) -> None:
    """ConfigError where a loss that carries something has rows that do not go on, or more than one gradient a step."""
    if carry is None:
        return
    name = experiment.loss.name
    if experiment.packing != "contiguous":
        raise ConfigError(
            f"{name}.carry: rows must go on from the batch before, and experiment.packing = '{experiment.packing}' "
            "chooses them anew. Set experiment.packing = 'contiguous'."
        )
    if experiment.updates:
        raise ConfigError(
            f"{name}.carry: with experiment.updates, a batch is read several times, by parameters that change between. "
            f"Set {name}.carry = False, or experiment.updates = []."
        )
    if isinstance(model, CountedLM):
        raise ConfigError(f"{name}.carry: the model '{experiment.model.name}' counts. Set {name}.carry = False.")


def misfit(loss: str, needs: type | tuple[type, ...], model: str, component: type) -> str:
    """The text for a loss that a model cannot serve."""
    has = [f"{article(c.__name__)}" for c in capabilities_of(component)]
    what = f"is {' and '.join(has)}" if has else "has no capability that lmlab knows"
    fitting = ", ".join(models_with(needs)) or "none"
    return f"the loss '{loss}' needs {article(named(needs))}; the model '{model}' {what}.\n  models that fit: {fitting}"


def models_with(needs: type | tuple[type, ...]) -> Iterator[str]:
    """The names of the registered models (classes) that serve a loss's needs; imports all of them."""
    for name in models.names():
        component = models.get(name)
        if inspect.isclass(component) and issubclass(component, needs):
            yield name
