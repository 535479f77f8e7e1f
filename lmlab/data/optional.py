"""Libraries that lmlab runs without."""

from __future__ import annotations

import importlib
from typing import Any

from lmlab.errors import ConfigError


def imported(module: str, what: str, extra: str) -> Any:
    """A module of an optional library.

    Args:
      module: its dotted name.
      what: who needs it, for the message.
      extra: the extra of lmlab that brings it.

    Raises:
      ConfigError: it is not installed; says how to install it.
    """
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{module}.".startswith(f"{error.name}."):
            raise
        library = module.split(".")[0]
        raise ConfigError(f"{what} needs {library}: pip install 'lmlab[{extra}]'") from None
