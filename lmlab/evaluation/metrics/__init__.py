"""Metrics named by their protocol, one file per family; perplexity is beside this folder.

All of them are used in one way. They hold exact totals, so that neither the size of the batches nor the number of
processes, nor the rows that fill up a last batch, change a digit of the result:

    totals = SpanF1()
    for batch in batches:
        totals.add(gold_tags, predicted_tags)
    totals.merge(those_of_another_process)      # plain data: they can be pickled
    totals.result()                             # {"f1/seqeval": 0.961, ...}

A number stands on the scale on which the program that its name tells prints it: BLEU, chrF and SQuAD's from 0 to 100,
all others from 0 to 1. Where nothing was counted, `result` is empty.
"""
