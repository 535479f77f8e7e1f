"""Laws that compile and run whole experiments are left to `pytest -m long`, but for some components."""

import pytest

from lmlab.testing import of_models, of_runs

EXPENSIVE = {
    law.__name__
    for law in (
        *of_runs.STEP_LAWS,
        *of_runs.RUN_LAWS,
        of_models.unrolled_is_scanned,
        of_models.computed_again_is_kept,
    )
}
HELD_TO_ALL = {
    "gpt", "autoregressive", "random_tokens", "text_files", "mixture", "transformed", "bytes", "adamw", "cosine",
    "mesh", "pmap", "perplexity", "held_out", "samples", "console", "csv",
}  # fmt: skip
"""Some of every kind; `example_bigram` of the plug-in example beside them."""


def pytest_collection_modifyitems(items):
    for item in items:
        check = getattr(item, "callspec", None) and item.callspec.params.get("check")
        if check is not None:
            later = check.law.__name__ in EXPENSIVE and check.entry.name not in HELD_TO_ALL
        else:
            later = any(item.name.endswith(law) for law in EXPENSIVE) and "bigram" not in item.name
        if later:
            item.add_marker(pytest.mark.long)
