"""gin text and command line to a Spec tree, and a Spec tree to objects. gin is imported nowhere else."""

from lmlab.config.construction import build
from lmlab.config.parameters import REQUIRED, Parameter, parameters, supplied_parameters
from lmlab.config.resolution import Variant, resolve, resolve_variants
from lmlab.config.resolved import Resolved
from lmlab.config.specs import ABSENT, diff, identity, spec_from_json, spec_hash, spec_to_json, walk, with_values
from lmlab.config.types import spell, spell_value

__all__ = [
    "ABSENT",
    "REQUIRED",
    "Parameter",
    "Resolved",
    "Variant",
    "build",
    "diff",
    "identity",
    "parameters",
    "resolve",
    "resolve_variants",
    "spec_from_json",
    "spec_hash",
    "spec_to_json",
    "spell",
    "spell_value",
    "supplied_parameters",
    "walk",
    "with_values",
]
