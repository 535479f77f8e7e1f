"""Choosing parameters by their role: what a parameter is for, not how it is named."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from lmlab.errors import ConfigError
from lmlab.nn.functional import ROLES
from lmlab.registry import unknown


def having_role(roles: Mapping[str, str], chosen: Sequence[str], parameter: str) -> dict[str, bool]:
    """Which parameters have one of the chosen roles, by path.

    Args:
      roles: each parameter's path and role.
      chosen: the roles to choose.
      parameter: the name of the setting that chose them, for the error.

    Raises:
      ConfigError: a chosen role does not exist.
    """
    known = sorted({*ROLES, *roles.values()})
    for role in chosen:
        if role not in known:
            raise ConfigError(unknown(f"{parameter}: no parameter role named '{role}'.", "role", role, known))
    return {path: role in chosen for path, role in roles.items()}
