"""Models: one file per family, each registered by name."""
