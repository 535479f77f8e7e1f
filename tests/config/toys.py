"""Small components of every shape that a configuration can bind; loaded by the tests as a plug-in."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from lmlab.contracts import Evaluator, Follows, Loss, Model, Ref, Schedule, Spec
from lmlab.registry import evaluators, losses, models, schedules, settings

if TYPE_CHECKING:
    from nowhere import Rngs  # a supplied parameter's type need not exist at run time


@models.register("toy_gpt")
class ToyGPT:
    """A decoder of no use."""

    def __init__(self, vocab: int, *, layers: int = 3, width: int = 7, dropout: float = 0, rngs: Rngs) -> None:
        if width == 13:
            raise ValueError(f"width {width} does not go with layers {layers}")
        self.given = (vocab, layers, width, dropout, rngs)


@models.register("toy_lstm")
class ToyLSTM:
    """A recurrence of no use."""

    def __init__(self, vocab: int, *, layers: int = 2, body: Annotated[Spec, Model] | None = None) -> None:
        self.given = (vocab, layers, body)


@schedules.register("toy_constant")
@dataclass(frozen=True)
class ToyConstant:
    """The same number at every step."""

    value: float = 0.5
    steps: int = 1


@schedules.register("toy_warmup")
def toy_warmup(peak: float, warmup: int = 5, *, steps: int) -> Callable[[int], float]:
    """A schedule made by a function."""
    return lambda step: peak * min(1.0, step / warmup) / steps


@losses.register("toy_loss")
@dataclass(frozen=True)
class ToyLoss:
    """One parameter of each type."""

    rate: float | Schedule = 0.1
    smoothing: float = 0.0
    name: str = "a"
    flag: bool = False
    mode: Literal["sum", "mean", 3] = "sum"
    maybe: int | None = None
    sizes: tuple[int, ...] = (1, 2)
    pair: tuple[str, float] = ("x", 1.0)
    names: Sequence[str] = ()
    either: float | int = 1
    table: Mapping[str, float] = field(default_factory=dict)
    parts: dict[str, Schedule] = field(default_factory=dict)
    anything: Any = None

    OPERATIONAL: ClassVar[frozenset[str]] = frozenset({"name"})


@evaluators.register("toy_eval")
@dataclass(frozen=True)
class ToyEval:
    """Counts batches."""

    batches: int = 4
    inner: Schedule | None = None


TOY_LOSS = Ref("toy_loss")


@settings.register("toy_root")
@dataclass(frozen=True)
class ToyRoot:
    """A root like `experiment`, of toys."""

    model: Annotated[Spec, Model]
    steps: int
    loss: Loss = TOY_LOSS  # type: ignore[assignment]
    evaluators: tuple[Annotated[Spec, Evaluator], ...] = (Ref("toy_eval"),)  # type: ignore[assignment]
    second: Annotated[Spec, Model] | None = None
    only: Annotated[Spec, ToyEval] | None = None
    log_every: int = 10

    OPERATIONAL: ClassVar[frozenset[str]] = frozenset({"log_every"})


@losses.register("toy_quiet_loss")
@dataclass(frozen=True)
class ToyQuietLoss:
    """A loss that says what it is measured by."""

    EVALUATORS: ClassVar[tuple[str, ...]] = ("toy_other_eval",)


@evaluators.register("toy_other_eval")
@dataclass(frozen=True)
class ToyOtherEval:
    """Counts nothing."""


@settings.register("toy_follower")
@dataclass(frozen=True)
class ToyFollower:
    """A root whose evaluators are those of its loss."""

    loss: Annotated[Spec, Loss]
    evaluators: tuple[Annotated[Spec, Evaluator], ...] = Follows(  # type: ignore[assignment]
        "loss", "EVALUATORS", ("toy_eval",)
    )
