"""The overlap of a dataset's splits as a table."""

from __future__ import annotations

from lmlab.cli.table import print_table
from lmlab.contracts import Dataset
from lmlab.data.overlap import overlaps


def print_overlaps(dataset: Dataset, n: int) -> None:
    """Prints a line for the validation and the test split: what they share with the training split."""
    rows = [
        [
            found.split, str(found.examples), _share(found.exact, found.examples),
            _share(found.touched, found.examples), str(found.short), _share(found.shared, found.grams),
        ]
        for found in overlaps(dataset, n)
    ]  # fmt: skip
    gram = f"{n}-gram"
    print_table(rows, ("split", "examples", "exact", f"with a shared {gram}", "too short", f"{gram}s shared"))


def _share(part: int, whole: int) -> str:
    return f"{part} ({part / whole:.2%})" if whole else "-"
