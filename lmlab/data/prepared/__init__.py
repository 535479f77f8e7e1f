"""Stores: a corpus tokenised once, written to a folder, and read from there without a copy.

    manifest.json            what the store was made from and what is in it; it is there only when all of it is
    tokenizer.json           the fitted vocabulary
    train-00000.ids          ids, little-endian, of the smallest sufficient unsigned type
    train-00000.documents    for each document, the place of its first id in that shard, little-endian uint64
    train-00000.examples     instead of these two, where the examples are not one stream: an ArrayRecord of JSON

The shards of a split, one after the other, are its stream: an end-of-text id before, between and behind the documents
(the first of these stands in the first shard only). A shard holds whole documents.
"""

from lmlab.data.prepared.preparation import Request as Request
from lmlab.data.prepared.preparation import prepare as prepare
from lmlab.data.prepared.store import Store as Store
