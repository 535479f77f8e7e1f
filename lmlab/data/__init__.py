"""Datasets by name, tokenizers, features, packing, the loader: from a corpus to batch k, a function of (seed, k).

    dataset ─► examples ─► tokenizer ─► rows (windows | first_fit | contiguous) ─► order ─► batch k ─► prefetch

Nothing here imports jax; grain is imported when the first pipeline is made. What is used is imported when it is used,
so that those who only ask whether a corpus is there (`archives`) wait for no arrays.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lmlab.data.accounting import TextTables as TextTables
    from lmlab.data.accounting import text_tables as text_tables
    from lmlab.data.features import conversion as conversion
    from lmlab.data.fingerprints import compare_fingerprints as compare_fingerprints
    from lmlab.data.joint import JointData as JointData
    from lmlab.data.loader import Data as Data
    from lmlab.data.loader import EvalBatches as EvalBatches
    from lmlab.data.loader import TrainBatches as TrainBatches
    from lmlab.data.opening import open_data as open_data
    from lmlab.data.prefetch import Prefetch as Prefetch

_HOMES = {
    "Data": "loader",
    "EvalBatches": "loader",
    "JointData": "joint",
    "Prefetch": "prefetch",
    "TextTables": "accounting",
    "TrainBatches": "loader",
    "compare_fingerprints": "fingerprints",
    "conversion": "features",
    "open_data": "opening",
    "text_tables": "accounting",
}

__all__ = [
    "Data",
    "EvalBatches",
    "JointData",
    "Prefetch",
    "TextTables",
    "TrainBatches",
    "compare_fingerprints",
    "conversion",
    "open_data",
    "text_tables",
]


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(importlib.import_module(f"lmlab.data.{_HOMES[name]}"), name)
    raise AttributeError(f"module 'lmlab.data' has no attribute '{name}'")


def __dir__() -> list[str]:
    return __all__
