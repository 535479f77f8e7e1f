"""Datasets that are drawn, not read: each from a law of which something is known exactly, such as its entropy.

Example i of a split is a pure function of (seed, split, i), so a training split may be endless and takes no memory.
"""
