"""Datasets by name, tokenizers, features, packing, the loader: from a corpus to batch k, a function of (seed, k).

    dataset ─► examples ─► tokenizer ─► rows (windows | first_fit) ─► order ─► batch k ─► background prefetch

Nothing here imports jax; grain is imported when the first pipeline is made.
"""

from lmlab.data.accounting import TextTables, text_tables
from lmlab.data.features import conversion
from lmlab.data.fingerprints import compare_fingerprints
from lmlab.data.loader import Data, EvalBatches, TrainBatches, open_data
from lmlab.data.prefetch import Prefetch

__all__ = [
    "Data",
    "EvalBatches",
    "Prefetch",
    "TextTables",
    "TrainBatches",
    "compare_fingerprints",
    "conversion",
    "open_data",
    "text_tables",
]
