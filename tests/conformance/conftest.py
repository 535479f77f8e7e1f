"""What is checked of every component at once, and what is left to `pytest -m long`.

Some components of every kind are held to every law at once. Of the other models and losses, those laws are checked at
once that a mistake in them would break first: the others compile as many programs again for each of them. Laws that
compile and run whole experiments are long for all others.
"""

import pytest

from lmlab.testing import every_component, of_losses, of_models, of_runs
from lmlab.testing.conformance import Check

AT_ONCE = {
    *every_component.LAWS,
    of_models.has_float32_logits,
    of_models.never_looks_ahead,
    of_models.sees_both_sides,
    of_models.reads_in_pieces_as_at_once,
    of_losses.sums_over_rows_add_up,
}
EXPENSIVE = {*of_runs.STEP_LAWS, *of_runs.RUN_LAWS, *of_runs.EVALUATOR_LAWS}
PARTS = {"mlm_distillation", "span_corruption"}
"""Losses whose sums are those of others, which are checked at once: of `mlm` and `distillation`, and of `seq2seq`."""
HELD_TO_ALL = {
    "gpt", "autoregressive", "text_files", "mixture", "adamw", "mesh", "pmap", "perplexity", "held_out", "samples",
}  # fmt: skip
"""Some of every kind; `example_bigram` of the plug-in example beside them."""
TWICE = {
    ("gpt", of_runs.layouts_agree),
    ("perplexity", of_runs.goes_on_where_it_stopped),
    ("samples", of_runs.goes_on_where_it_stopped),
}
"""What is long although it is of those: the same law of `autoregressive` or `held_out` runs the same code at once, and
`tests/parallel` trains on every layout."""


def pytest_collection_modifyitems(items):
    for item in items:
        if item.path.parent.name == "conformance" and is_long(item):
            item.add_marker(pytest.mark.long)


def is_long(item):
    check = item.callspec.params.get("check") if hasattr(item, "callspec") else None
    if isinstance(check, Check):
        if (check.entry.name, check.law) in TWICE:
            return True
        if check.entry.kind in ("model", "loss"):
            at_once = check.law in AT_ONCE and not (check.law in of_losses.LAWS and check.entry.name in PARTS)
            return not at_once and check.entry.name not in HELD_TO_ALL
        return check.law in EXPENSIVE and check.entry.name not in HELD_TO_ALL
    law = next((law for law in EXPENSIVE if item.name.endswith(law.__name__)), None)
    return law is not None and "bigram" not in item.name
