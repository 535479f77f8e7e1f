"""Losses: one file per objective, each registered by name."""
