"""What the process has imported that workers are forked from: the worker, and what nearly every run needs."""

import gc

import grain  # noqa: F401

import lmlab.evaluation.perplexity
import lmlab.nn.transformer
import lmlab.optim.optimizers
import lmlab.parallel.mesh
import lmlab.sweeps.worker  # noqa: F401

# What is here now stays to the end: collections, in the forked processes too, and the interpreter's end need not look
# at it (0.6 s of the latter).
gc.freeze()
