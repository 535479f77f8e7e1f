"""Filling in what was left out of a text: T5's pre-training."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar

from lmlab.contracts import CorruptedBatch
from lmlab.losses.seq2seq import Seq2Seq
from lmlab.ranges import Fraction, Within
from lmlab.registry import losses


@losses.register("span_corruption")
@dataclass(frozen=True)
class SpanCorruption(Seq2Seq):
    """Cross-entropy of the stretches that were left out of a text, in nats summed over the batch.

    Raffel et al. 2020 (arXiv:1910.10683, section 3.1.4): in the source a sentinel stands for each stretch, the target
    has each sentinel with what it stands for. Windows of the text are as long as `experiment.source_len` and
    `experiment.seq_len` let them be (512 and 114 in T5), and other stretches are left out each time that a window
    comes. The tokenizer gives the sentinels: special ids whose role begins with `sentinel`.

    Needs: EncoderDecoder, and a batch of corrupted texts.
    Metrics: those of `seq2seq`.

    Example (5 and 6 are sentinels, 2 ends a text):
      text          = [a b c d e f g]
      source_tokens = [a b 5 d e 6 2]
      targets       = [5 c 6 f g 2]

    Args:
      label_smoothing, teacher_forcing, chunk: see `seq2seq`.
      density: share of the ids that are left out.
      mean_span: mean number of ids in a stretch.
    """

    reads: ClassVar[type] = CorruptedBatch
    FEATURES: ClassVar[tuple[str, ...]] = ("density", "mean_span")
    EVALUATORS: ClassVar[tuple[str, ...]] = ("held_out",)
    TINY: ClassVar[str] = """
    experiment.dataset = @text_files
    experiment.tokenizer = @bytes
    experiment.seq_len = 11
    experiment.source_len = 23
    bytes.specials = ('sentinel_0', 'sentinel_1', 'sentinel_2')
    """

    density: Fraction = 0.15
    mean_span: Annotated[float, Within(at_least=1)] = 3.0
