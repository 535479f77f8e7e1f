"""CPython's own text; see README.md in this folder."""
