"""Datasets that need no package archive: files of the user's, and what is generated."""
