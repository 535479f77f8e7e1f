"""gin text and command line to a Spec tree, and a Spec tree to objects. gin is imported nowhere else."""

from lmlab.config.construction import build
from lmlab.config.parameters import REQUIRED, Parameter, parameters, supplied_parameters
from lmlab.config.resolution import resolve
from lmlab.config.resolved import Resolved
from lmlab.config.specs import ABSENT, diff, identity, spec_from_json, spec_hash, spec_to_json, walk
from lmlab.config.types import spell, spell_value

__all__ = [
    "ABSENT",
    "REQUIRED",
    "Parameter",
    "Resolved",
    "build",
    "diff",
    "identity",
    "parameters",
    "resolve",
    "spec_from_json",
    "spec_hash",
    "spec_to_json",
    "spell",
    "spell_value",
    "supplied_parameters",
    "walk",
]
