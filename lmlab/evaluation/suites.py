"""Suites: named sets of measurements, whatever a run was trained with (`lmlab eval RUN --suite NAME`)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, ClassVar

from lmlab.config import resolve
from lmlab.contracts import Evaluator, Spec
from lmlab.errors import ConfigError
from lmlab.registry import near_names, settings

SUITES: Mapping[str, str] = {
    "perplexity": "suite.evaluators = [@text_perplexity]",
    "classification": "suite.evaluators = [@classification_report]",
    "tagging": "suite.evaluators = [@tagging_report]",
    "translation": "suite.evaluators = [@target_report]; target_report.measures = ['bleu', 'chrf']",
    "summarisation": "suite.evaluators = [@target_report]; target_report.measures = ['rouge']",
    "squad": "suite.evaluators = [@answer_report]",
    "minimal_pairs": "suite.evaluators = [@minimal_pairs]",
    "calibration": "suite.evaluators = [@calibration]",
    "bias": "suite.evaluators = [@bias]",
    "probing": "suite.evaluators = [@probing]",
}
"""gin text by name: the evaluators of a suite, and what differs from their defaults."""


@settings.register("suite")
@dataclass(frozen=True)
class Suite:
    """What `lmlab eval --suite` measures, in place of a run's own evaluators.

    Args:
      evaluators: the measurements; `lmlab describe NAME` says what each reads, and what can be set.
    """

    TINY: ClassVar[str] = "suite.evaluators = [@held_out]"

    evaluators: tuple[Annotated[Spec, Evaluator], ...]


def suite_evaluators(name: str, overrides: Sequence[str] = (), plugins: Sequence[str] = ()) -> tuple[Spec, ...]:
    """The evaluators of a suite.

    Args:
      name: of the suite.
      overrides: gin statements that win over what it says: `probing.dataset = @atis_intent`.
      plugins: files or modules with components.

    Raises:
      ConfigError: there is no such suite, or a statement does not fit, or leaves nothing to measure.
    """
    if name not in SUITES:
        raise ConfigError(f"no suite named '{name}'.{near_names(name, list(SUITES))}\n  suites: {', '.join(SUITES)}")
    suite: Suite = resolve([], [SUITES[name], *overrides], plugins, root="suite").build()
    if not suite.evaluators:
        raise ConfigError(f"--set leaves the suite '{name}' without evaluators: there is nothing to measure.")
    return suite.evaluators
