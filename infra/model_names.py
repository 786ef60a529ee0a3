"""Names in MLflow's model registry."""

from __future__ import annotations

import re

# MLflow allows more; these stay whole in URIs such as ``models:/name@alias``.
NAME_PATTERN = r"^[A-Za-z0-9][A-Za-z0-9._-]*$"
_RESERVED = re.compile(r"latest|v\d+", re.IGNORECASE)  # aliases that MLflow keeps for itself


def check_name(name: str) -> str:
    """The name of a registered model.

    Raises:
        ValueError: it would not stay whole in a URI.
    """
    if not re.match(NAME_PATTERN, name):
        raise ValueError(f"found {name!r}; letters, digits, '.', '_' and '-' are allowed")
    return name


def check_alias(alias: str) -> str:
    """The alias.

    Raises:
        ValueError: MLflow would not take it.
    """
    if _RESERVED.fullmatch(check_name(alias)):
        raise ValueError(f"found {alias!r}; 'latest', 'v1', 'v2', … are MLflow's own")
    return alias
