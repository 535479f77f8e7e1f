"""Verses from the SWORD modules that Debian has; see README.md in this folder."""
