"""Numbers of a configuration that a module keeps."""

from __future__ import annotations

from jax import Array


class Number:
    """A number that may be a tracer.

    A plain object: a traced number in a module's attribute would become part of its state.

    Args:
      value: the number.
    """

    def __init__(self, value: float | Array) -> None:
        self.value = value
