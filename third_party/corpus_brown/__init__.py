"""The Brown corpus; see README.md in this folder."""
