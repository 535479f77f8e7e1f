"""What a scaling law is fitted to: runs of several sizes and several numbers of tokens, from a table."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np

from lmlab.errors import DataError
from lmlab.sweeps.scaling_law import Points

_WANTED = "its first line must name the columns 'parameters', 'loss' (nats per token), and 'tokens' or 'flops' (6 N D)"


ALSO = {"Model Size": "parameters", "Training FLOP": "flops"}
"""Names of columns in the file that Besiroglu et al. publish."""


def read_points(path: str | Path) -> Points:
    """The points of a CSV file with the columns `parameters`, `loss`, and `tokens` or `flops`; others do not matter.

    Besiroglu et al.'s names of them (`ALSO`) are known too. Of `flops` C, the tokens are C / (6 N).

    Raises:
      DataError: there is no such file, a column is missing, or a value is no positive number; the line is named.
    """
    try:
        with Path(path).open(newline="", encoding="utf-8-sig") as file:
            rows = csv.DictReader(file)
            names = [(name or "").strip() for name in rows.fieldnames or ()]
            names = [ALSO.get(name, name) for name in names]
            third = next((name for name in ("tokens", "flops") if name in names), None)
            if third is None or not {"parameters", "loss"} <= set(names):
                raise DataError(f"{path}: {_WANTED}; it names {', '.join(map(repr, names)) or 'none'}.")
            rows.fieldnames = names
            found = [_numbers(row, third, f"{path}:{rows.line_num}") for row in rows]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{path} cannot be read as a CSV file of points: {error}") from None
    if not found:
        raise DataError(f"{path} has no points.")
    parameters, given, loss = np.asarray(found).T
    return Points(parameters, given / (6 * parameters) if third == "flops" else given, loss)


def _numbers(row: dict[str, str], third: str, place: str) -> list[float]:
    found = []
    for name in ("parameters", third, "loss"):
        try:
            number = float(row[name])
        except (TypeError, ValueError):
            raise DataError(f"{place}: '{name}' is {row[name]!r}, which is no number.") from None
        if not (np.isfinite(number) and number > 0):
            raise DataError(f"{place}: '{name}' is {row[name]}; it must be a positive number.")
        found.append(number)
    return found
