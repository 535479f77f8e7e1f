"""Measuring a model: evaluators by name, whose metrics carry their protocol in their names."""
