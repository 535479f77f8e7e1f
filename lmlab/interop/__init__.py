"""Weights and programs from elsewhere, and for elsewhere."""
