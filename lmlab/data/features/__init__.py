"""From examples to the rows of a loss's batches: one conversion for each example kind and batch type that fit.

seqio's idea (arXiv:2203.17189, section 3.1): a dataset knows its task, a loss knows its batch, a converter joins them,
and a worked example in its docstring is its test.
"""

from lmlab.data.features import conversations as conversations
from lmlab.data.features import corruption as corruption
from lmlab.data.features import labelled as labelled
from lmlab.data.features import masking as masking
from lmlab.data.features import pairs as pairs
from lmlab.data.features import questions as questions
from lmlab.data.features import sentences as sentences
from lmlab.data.features import sequences as sequences
from lmlab.data.features import stream as stream
from lmlab.data.features.rows import CONVERSIONS as CONVERSIONS
from lmlab.data.features.rows import Batch as Batch
from lmlab.data.features.rows import Overlong as Overlong
from lmlab.data.features.rows import Packing as Packing
from lmlab.data.features.rows import Rows as Rows
from lmlab.data.features.rows import Setting as Setting
from lmlab.data.features.rows import UnseenLabel as UnseenLabel
from lmlab.data.features.rows import conversion as conversion
from lmlab.data.features.rows import usual_batch as usual_batch
