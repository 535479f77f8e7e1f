"""Outside projects whose data lmlab reads: a folder each, with its provenance and the plug-in that registers it.

Installed as `lmlab_third_party` and found through the entry-point group `lmlab.plugins`, like any user's plug-in.
"""

from lmlab_third_party.cpython import stdlib  # noqa: F401
