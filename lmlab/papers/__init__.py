"""Executable papers: what a paper claims, the runs and checks that measure it, and whether the numbers were met."""
